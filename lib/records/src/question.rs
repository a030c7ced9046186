//! The one reading of a prompt row: which text it stands for, which turns a chat template is given, which bare text runs without one.
//! Every tool that runs a model asks here, so that one row has one digest and one meaning.

use serde_json::Map;

use crate::dataset::Row;
use crate::error::Result;
use crate::identity::text_digest;
use crate::record::{Message, Prompt};

impl Prompt {
    /// What a dataset row asks, with the text under `field` in the place of `prompt`; keys that say nothing of this may hold anything.
    ///
    /// ```
    /// use records::{Prompt, dataset::{InputFormat, Options}};
    ///
    /// let line = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"system":"Be brief."}"#;
    /// let row = Options::new().format(InputFormat::Jsonl).read(line.as_bytes())?.next().unwrap()?;
    /// let prompt = Prompt::asked(&row, "prompt")?;
    /// assert_eq!(prompt.text(), Some("Hi"));
    /// assert_eq!(prompt.turns(None), [("system", "Be brief."), ("user", "Hi")]);
    /// assert!(prompt.bare(None).is_err());
    /// # Ok::<(), records::Error>(())
    /// ```
    pub fn asked(row: &Row, field: &str) -> Result<Prompt> {
        let mut value = Map::new();
        for (key, from) in [("prompt", field), ("messages", "messages"), ("system", "system")] {
            if let Some(found) = row.value.get(from) {
                value.insert(key.into(), found.clone());
            }
        }
        value.insert("id".into(), row.id()?.into());
        crate::decode::typed(&value).map_err(|fault| row.fault(fault))
    }

    /// The text that the row stands for, before template and stripping: its prompt, else the last user's turn, else the last turn.
    pub fn text(&self) -> Option<&str> {
        let turns = || self.messages.as_deref().unwrap_or_default();
        let asks = |message: &&Message| message.role == "user";
        let last = || turns().iter().rfind(asks).or(turns().last());
        self.prompt
            .as_deref()
            .or_else(|| last().map(|message| message.content.as_str()))
    }

    /// `sha256:…` of [`Prompt::text`].
    pub fn text_digest(&self) -> Option<String> {
        self.text().map(text_digest)
    }

    /// The conversation that a chat template is given: `messages`, else the prompt as the user's turn; before it the row's system message,
    /// else `system`, unless the conversation begins with its own.
    pub fn turns<'p>(&'p self, system: Option<&'p str>) -> Vec<(&'p str, &'p str)> {
        let given = match (&self.messages, &self.prompt) {
            (Some(messages), _) => messages.iter().map(Message::turn).collect(),
            (None, Some(text)) => vec![("user", text.as_str())],
            (None, None) => Vec::new(),
        };
        let system = self.own_system().or(system);
        let is_missing = given.first().is_none_or(|(role, _)| *role != "system");
        let system = system.filter(|_| is_missing).map(|text| ("system", text));
        system.into_iter().chain(given).collect()
    }

    /// The same question without its system message.
    pub fn without_system(&self) -> Prompt {
        let mut prompt = self.clone();
        prompt.system = None;
        if let Some(messages) = &mut prompt.messages
            && messages.first().is_some_and(|message| message.role == "system")
        {
            messages.remove(0);
        }
        prompt
    }

    /// The text that runs where there is no chat template; what only a template can say is refused.
    pub fn bare(&self, system: Option<&str>) -> std::result::Result<&str, &'static str> {
        match &self.prompt {
            None => Err("the record has messages, and there is no chat template"),
            Some(_) if self.own_system().or(system).is_some() => {
                Err("the record has a system message, and there is no chat template")
            }
            Some(text) => Ok(text),
        }
    }

    /// An empty one counts as absent: table writers fill so.
    fn own_system(&self) -> Option<&str> {
        self.system.as_deref().filter(|text| !text.is_empty())
    }
}

impl Message {
    /// Role and text.
    pub fn turn(&self) -> (&str, &str) {
        (&self.role, &self.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{InputFormat, Options};

    fn asked(line: &'static str) -> Prompt {
        let rows = Options::new().format(InputFormat::Jsonl).read(line.as_bytes());
        let row = rows.unwrap().next().unwrap().unwrap();
        Prompt::asked(&row, "prompt").unwrap()
    }

    #[test]
    fn a_prompt_stands_for_itself_and_messages_for_the_last_question() {
        assert_eq!(
            asked(r#"{"prompt":"p","messages":[{"role":"user","content":"m"}]}"#).text(),
            Some("p")
        );
        let talk = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}"#;
        assert_eq!(asked(talk).text(), Some("c"));
        assert_eq!(
            asked(r#"{"messages":[{"role":"tool","content":"t"}]}"#).text(),
            Some("t")
        );
        assert_eq!(asked(r#"{"id":"x","bench":7}"#).text(), None);
    }

    #[test]
    fn a_conversation_has_one_system_message() {
        let prompt = asked(r#"{"prompt":"p","system":"own"}"#);
        assert_eq!(prompt.turns(Some("flag")), [("system", "own"), ("user", "p")]);
        let empty = asked(r#"{"prompt":"p","system":""}"#);
        assert_eq!(empty.turns(Some("flag")), [("system", "flag"), ("user", "p")]);
        assert_eq!(empty.bare(None), Ok("p"));
        let begun =
            asked(r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"system":"own"}"#);
        assert_eq!(begun.turns(Some("flag")), [("system", "s"), ("user", "u")]);
        assert_eq!(begun.without_system().turns(None), [("user", "u")]);
        assert_eq!(prompt.without_system().turns(None), [("user", "p")]);
    }

    #[test]
    fn what_only_a_template_can_say_is_not_run_bare() {
        assert!(
            asked(r#"{"prompt":"p","system":"s"}"#)
                .bare(None)
                .unwrap_err()
                .contains("system")
        );
        assert!(
            asked(r#"{"prompt":"p"}"#)
                .bare(Some("s"))
                .unwrap_err()
                .contains("system")
        );
        assert!(asked(r#"{"messages":[]}"#).bare(None).unwrap_err().contains("messages"));
    }
}
