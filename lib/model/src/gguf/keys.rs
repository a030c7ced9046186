//! The keys of one architecture, which remember what was asked of them: a key that nobody read is refused by name.

use std::cell::RefCell;
use std::collections::HashSet;

use super::blocks;
use super::file::{File, Value};
use crate::error::{Error, Result};

/// Keys that say nothing about the forward pass.
const SILENT_KEYS: [&str; 4] = [
    "vocab_size",
    "attention.causal",
    "rope.scaling.finetuned",
    "tensor_data_layout",
];

pub struct Keys<'f> {
    prefix: &'static str,
    file: &'f File,
    read: RefCell<HashSet<String>>,
}

impl<'f> Keys<'f> {
    pub fn new(prefix: &'static str, file: &'f File) -> Self {
        let read = RefCell::default();
        Self { prefix, file, read }
    }

    pub fn get(&self, suffix: &str) -> (String, Option<&'f Value>) {
        let key = format!("{}.{suffix}", self.prefix);
        self.read.borrow_mut().insert(key.clone());
        let value = self.file.metadata().get(&key);
        (key, value)
    }

    pub fn refuse(&self, suffix: &str, cause: &str) -> Error {
        Error::file("", format!("{}.{suffix} {cause}", self.prefix))
    }

    pub fn count(&self, suffix: &str) -> Result<Option<usize>> {
        let (key, value) = self.get(suffix);
        count(&key, value)
    }

    /// A key of another prefix.
    pub fn plain_count(&self, key: &str) -> Result<Option<usize>> {
        count(key, self.file.metadata().get(key))
    }

    pub fn needed(&self, suffix: &str) -> Result<usize> {
        self.count(suffix)?.ok_or_else(|| self.refuse(suffix, "is missing"))
    }

    pub fn number(&self, suffix: &str) -> Result<Option<f64>> {
        match self.get(suffix).1 {
            None => Ok(None),
            // The file holds an f32; its shortest decimal form is the number that was meant.
            Some(Value::Float(value)) if value.is_finite() => {
                Ok(Some((*value as f32).to_string().parse().unwrap_or(*value)))
            }
            Some(Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(_) => Err(self.refuse(suffix, "is no number")),
        }
    }

    pub fn needed_number(&self, suffix: &str) -> Result<f64> {
        self.number(suffix)?.ok_or_else(|| self.refuse(suffix, "is missing"))
    }

    pub fn text(&self, suffix: &str) -> Result<Option<&'f str>> {
        match self.get(suffix).1 {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.refuse(suffix, "is no text")),
        }
    }

    pub fn flag(&self, suffix: &str) -> Result<Option<bool>> {
        match self.get(suffix).1 {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.refuse(suffix, "is neither true nor false")),
        }
    }

    pub fn has_tensor(&self, name: &str) -> bool {
        self.file.entries().contains_key(name)
    }

    /// A small tensor of factors.
    pub fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.file.entries().get(name) else {
            return Ok(None);
        };
        let factors = blocks::dequantised(self.file.bytes_of(entry), entry.stored);
        match factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
            true => Ok(Some(factors)),
            false => Err(Error::tensor(name, "holds a factor that is not above 0")),
        }
    }

    pub fn refuse_unread(&self) -> Result<()> {
        let read = self.read.borrow();
        let is_unread = |key: &str, value: &Value| {
            let suffix = key.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.'));
            suffix.is_some_and(|suffix| !SILENT_KEYS.contains(&suffix)) && !value.is_nothing() && !read.contains(key)
        };
        let all = self.file.metadata().iter();
        match all
            .filter(|(key, value)| is_unread(key, value))
            .map(|(key, _)| key)
            .min()
        {
            None => Ok(()),
            Some(key) => Err(Error::file(
                "",
                format!("{key} is not known here and may change the result"),
            )),
        }
    }
}

/// One number for all layers: a list of one and the same is that number.
fn count(key: &str, value: Option<&Value>) -> Result<Option<usize>> {
    let refuse = |cause: String| Err(Error::file("", format!("{key} {cause}")));
    let number = match value {
        None => return Ok(None),
        Some(Value::Integer(value)) => *value,
        Some(Value::Integers(list)) => match list.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => i128::from(*first),
            _ => return refuse("differs by layer, which is not computed".into()),
        },
        Some(_) => return refuse("is no integer".into()),
    };
    match u32::try_from(number) {
        Ok(number) => Ok(Some(number as usize)),
        Err(_) => refuse(format!("= {number} is out of range")),
    }
}
