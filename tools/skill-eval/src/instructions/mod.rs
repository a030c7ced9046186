//! IFEval's instructions, checked by rule as lm-evaluation-harness checks them. What would need its trained sentence splitter, its
//! language detector or its random numbers is not said, where the text leaves it open.

mod checks;
mod words;

use serde_json::{Map, Value};

use checks::Check;

/// The instructions of a prompt.
pub struct Instructions {
    pub list: Vec<Instruction>,
}

pub struct Instruction {
    pub name: String,
    check: Check,
}

/// Which instructions an answer follows; none where that cannot be said.
pub struct Followed {
    pub each: Vec<Option<bool>>,
}

impl Followed {
    pub fn all(&self) -> Option<bool> {
        match (self.each.contains(&Some(false)), self.each.contains(&None)) {
            (true, _) => Some(false),
            (false, true) => None,
            (false, false) => Some(true),
        }
    }
}

impl Instructions {
    /// From the columns `instruction_id_list` and `kwargs`.
    pub fn parse(row: &Map<String, Value>) -> Result<Instructions, String> {
        let list = |key: &str| match row.get(key) {
            Some(Value::Array(list)) => Ok(list),
            _ => Err(format!("no list under `{key}`: not a row of IFEval")),
        };
        let (names, arguments) = (list("instruction_id_list")?, list("kwargs")?);
        if names.len() != arguments.len() || names.is_empty() {
            return Err(format!("{} instructions with {} kwargs", names.len(), arguments.len()));
        }
        let instruction = |(name, arguments): (&Value, &Value)| {
            let name = name.as_str().ok_or("an instruction has no name")?;
            let arguments = Arguments {
                given: arguments
                    .as_object()
                    .ok_or("kwargs holds something that is no object")?,
            };
            Ok(Instruction {
                name: name.to_owned(),
                check: Check::new(name, &arguments).map_err(|cause| format!("{name}: {cause}"))?,
            })
        };
        let list: Result<Vec<Instruction>, String> = names.iter().zip(arguments).map(instruction).collect();
        Ok(Instructions { list: list? })
    }

    /// The answer as it is.
    pub fn strict(&self, answer: &str) -> Followed {
        self.followed(&[answer.to_owned()])
    }

    /// The answer, or what is left of it without its first line, its last, both, or its asterisks.
    pub fn loose(&self, answer: &str) -> Followed {
        let lines: Vec<&str> = answer.split('\n').collect();
        let (first, last) = (1.min(lines.len()), lines.len() - 1);
        let part = |lines: &[&str]| checks::strip(&lines.join("\n")).to_owned();
        let both = if first < last { &lines[first..last] } else { &[] };
        let cut = [
            answer.to_owned(),
            part(&lines[first..]),
            part(&lines[..last]),
            part(both),
        ];
        let plain = cut.iter().map(|text| text.replace('*', ""));
        let all: Vec<String> = cut.iter().cloned().chain(plain).collect();
        self.followed(&all)
    }

    /// An instruction is followed where one form of the answer follows it. What is empty follows nothing.
    fn followed(&self, forms: &[String]) -> Followed {
        let follows = |instruction: &Instruction| {
            let forms = forms.iter().filter(|form| !checks::strip(form).is_empty());
            let said: Vec<Option<bool>> = forms.map(|form| instruction.check.follows(form)).collect();
            match (said.contains(&Some(true)), said.contains(&None)) {
                (true, _) => Some(true),
                (false, true) => None,
                (false, false) => Some(false),
            }
        };
        Followed {
            each: self.list.iter().map(follows).collect(),
        }
    }
}

/// What an instruction is given. What is empty or zero counts as not given, as in the harness.
pub struct Arguments<'v> {
    given: &'v Map<String, Value>,
}

impl Arguments<'_> {
    pub fn text(&self, key: &str) -> Result<&str, String> {
        let text = self
            .given
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("no text under `{key}`"))
    }

    pub fn number(&self, key: &str) -> Result<usize, String> {
        let number = self
            .given
            .get(key)
            .and_then(Value::as_f64)
            .filter(|number| *number >= 1.0 && number.fract() == 0.0);
        number
            .map(|number| number as usize)
            .ok_or_else(|| format!("no count under `{key}`"))
    }

    pub fn texts(&self, key: &str) -> Result<Vec<&str>, String> {
        let list = self
            .given
            .get(key)
            .and_then(Value::as_array)
            .filter(|list| !list.is_empty());
        let texts = list.and_then(|list| list.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| format!("no list of texts under `{key}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scripts/parity/skill-eval/harness.py`.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/harness.json")).unwrap()
    }

    fn bits(value: &Value) -> Vec<bool> {
        value.as_str().unwrap().chars().map(|bit| bit == '1').collect()
    }

    /// How often a reading says nothing, after holding what it says against the harness.
    fn unsaid(case: &Value, texts: &[&str], reading: &str) -> usize {
        let instructions = Instructions::parse(case.as_object().unwrap()).unwrap();
        let whole = bits(&case[format!("prompt_level_{reading}")]);
        let mut unsaid = 0;
        for (index, text) in texts.iter().enumerate() {
            let followed = match reading {
                "strict" => instructions.strict(text),
                _ => instructions.loose(text),
            };
            let wanted = bits(&case[format!("inst_level_{reading}")][index]);
            for ((said, wanted), instruction) in followed.each.iter().zip(wanted).zip(&instructions.list) {
                unsaid += usize::from(said.is_none());
                assert!(
                    said.is_none_or(|said| said == wanted),
                    "{}, {reading}: {text:?}",
                    instruction.name
                );
            }
            assert!(
                followed.all().is_none_or(|said| said == whole[index]),
                "{reading}: {text:?}"
            );
        }
        unsaid
    }

    #[test]
    fn an_answer_follows_what_the_harness_says_it_follows() {
        let golden = golden();
        let texts: Vec<&str> = golden["ifeval"]["texts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        let open = [
            "language:response_language",
            "length_constraints:number_sentences",
            "change_case:english_capital",
            "change_case:english_lowercase",
        ];
        for case in golden["ifeval"]["cases"].as_array().unwrap() {
            let count = unsaid(case, &texts, "strict") + unsaid(case, &texts, "loose");
            let names = case["instruction_id_list"].as_array().unwrap();
            let may_be_open = names.iter().any(|name| open.contains(&name.as_str().unwrap()));
            assert!(may_be_open || count == 0, "{names:?}");
        }
    }

    #[test]
    fn what_the_harness_would_draw_at_random_is_not_said_and_a_wrong_row_is_refused() {
        let parse = |name: &str, arguments: Value| {
            let row = serde_json::json!({"instruction_id_list": [name], "kwargs": [arguments]});
            Instructions::parse(row.as_object().unwrap())
        };
        let letter = serde_json::json!({"letter": "#", "let_frequency": 4, "let_relation": "at least"});
        assert_eq!(
            parse("keywords:letter_frequency", letter).unwrap().strict("a # b").each,
            [None]
        );
        let place = serde_json::json!({"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"});
        let name = "length_constraints:nth_paragraph_first_word";
        assert_eq!(parse(name, place).unwrap().loose("a").each, [None]);
        for (name, arguments) in [
            (
                "length_constraints:number_words",
                serde_json::json!({"num_words": 0, "relation": "at least"}),
            ),
            (
                "length_constraints:number_words",
                serde_json::json!({"num_words": 5, "relation": "about"}),
            ),
            ("keywords:existence", serde_json::json!({"keywords": ["("]})),
            ("made:up", serde_json::json!({})),
            ("startend:quotation", serde_json::json!("none")),
        ] {
            assert!(parse(name, arguments).is_err(), "{name}");
        }
    }
}
