//! Prompts of a kind as token ids, drawn by a seed.

use std::path::Path;

use model::{Bos, Checkpoint, Config, Template, Tokenizer};
use numerics::rng::Rng;
use process::{Error, Result, ResultExt};
use records::{Prompt, dataset};

use crate::cli::SearchFlags;

/// How prompts become token ids.
pub struct Speech {
    pub tokenizer: Tokenizer,
    template: Option<Template>,
    system: Option<String>,
    /// Tokens at the end of a prompt that are looked at.
    pub tail_count: usize,
}

/// Prompts of one kind: some from which vectors are made, and others on which they are tried.
pub struct Prompts {
    pub group: &'static str,
    pub train: Vec<Vec<u32>>,
    pub validation: Vec<Vec<u32>>,
}

impl Speech {
    pub fn open(flags: &SearchFlags, checkpoint: &Checkpoint) -> Result<Speech> {
        let subject = flags.model.model.display();
        let template = match (&flags.template, flags.raw) {
            (Some(path), _) => Some(Template::read(path, flags.model.follow_links).at(path.display())?),
            (None, true) => None,
            (None, false) => {
                let found = checkpoint.template().at(&subject)?;
                Some(found.ok_or_else(|| {
                    Error::input(&subject, "has no chat template").hint("--template brings one, --raw goes without")
                })?)
            }
        };
        let mut speech = Speech {
            tokenizer: checkpoint.tokenizer().at(&subject)?,
            template,
            system: flags.system.clone(),
            tail_count: 1,
        };
        speech.tail_count = match flags.tokens {
            Some(count) => count as usize,
            None => speech.tail()?,
        };
        Ok(speech)
    }

    pub fn template_digest(&self) -> Option<String> {
        let template = self.template.as_ref()?;
        Some(format!("blake3:{}", template.digest().to_hex()))
    }

    /// How many tokens the template puts behind any question; 1 where there is no template.
    fn tail(&self) -> Result<usize> {
        let Some(template) = &self.template else {
            return Ok(1);
        };
        let question = "How do I begin";
        let text = template
            .render(&[("user", question)], &self.tokenizer, true)
            .at("chat template")?;
        let behind = text
            .rfind(question)
            .map(|at| &text[at + question.len()..])
            .unwrap_or_default();
        match self.tokenizer.encode(behind, Bos::Off).at("chat template")?.len() {
            0 => Err(Error::input("chat template", "puts no token behind the question").hint("--tokens says how many")),
            count => Ok(count),
        }
    }

    fn ids(&self, prompt: &Prompt) -> std::result::Result<Vec<u32>, String> {
        let system = self.system.as_deref();
        let ids = match &self.template {
            None => self.tokenizer.encode(prompt.bare(system)?, Bos::Auto),
            Some(template) => template
                .render(&prompt.turns(system), &self.tokenizer, true)
                .and_then(|text| self.tokenizer.encode(&text, Bos::Off)),
        };
        ids.map_err(|error| error.to_string())
    }
}

impl Prompts {
    /// Reads all prompts of a file and draws.
    pub fn read(
        path: &Path,
        group: &'static str,
        flags: &SearchFlags,
        speech: &Speech,
        config: &Config,
    ) -> Result<Prompts> {
        let subject = path.display();
        let rows = dataset::Options::new()
            .format(flags.input_format)
            .open(path)
            .at(&subject)?;
        let mut all = Vec::new();
        for row in rows {
            let row = row.at(&subject)?;
            let prompt = Prompt::asked(&row, &flags.field).at(&subject)?;
            let ids = speech
                .ids(&prompt)
                .and_then(|ids| check(ids, speech.tail_count, config));
            all.push(ids.or_else(|cause| Err(row.refuse(cause)).at(&subject))?);
        }
        let (train, validation) = (flags.train as usize, flags.validation as usize);
        Rng::new(flags.seed, group).shuffle(0, &mut all);
        if all.len() < 2 {
            let cause = format!(
                "{} prompts: some are needed to make vectors, and others to try them",
                all.len()
            );
            return Err(Error::input(&subject, cause));
        }
        // a short file is divided in the proportion that was asked for
        let train = train.min((all.len() * train / (train + validation)).clamp(1, all.len() - 1));
        let validation = all[train..].iter().take(validation).cloned().collect();
        all.truncate(train);
        Ok(Prompts {
            group,
            train: all,
            validation,
        })
    }
}

fn check(ids: Vec<u32>, tail_count: usize, config: &Config) -> std::result::Result<Vec<u32>, String> {
    let (count, limit) = (ids.len(), config.position_count);
    match count {
        _ if count < tail_count => Err(format!("the prompt has {count} tokens, and {tail_count} are looked at")),
        _ if count > limit => Err(format!(
            "the prompt is {count} tokens long, the model's limit is {limit}"
        )),
        _ => match ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            Some(id) => Err(format!("token id {id} is beyond the model's vocabulary")),
            None => Ok(ids),
        },
    }
}
