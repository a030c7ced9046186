//! The KEY=VALUE,… of an auxiliary loss, taken key by key; what nobody took is refused.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::ValueEnum;
use process::Layers;

pub struct Options {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Options {
    /// A part without `=` belongs to the value before it, which may be a list: `window=3,5,k=2`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            match part.split_once('=') {
                Some((key, _)) if pairs.iter().any(|(known, _)| known == key) => {
                    return Err(format!("{key}: given twice"));
                }
                Some((key, value)) => pairs.push((key.into(), value.into())),
                None => match pairs.last_mut() {
                    Some((_, list)) => *list = format!("{list},{part}"),
                    None => return Err(format!("{part:?} is not KEY=VALUE")),
                },
            }
        }
        Ok(Self {
            pairs,
            known: Vec::new(),
        })
    }

    /// The value of `key`, if it is given.
    fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.known.push(key);
        let Some(at) = self.pairs.iter().position(|(given, _)| given == key) else {
            return Ok(None);
        };
        let value = read(&self.pairs.remove(at).1);
        value.map(Some).map_err(|cause| format!("{key}: {cause}"))
    }

    /// A number within `range`, whole where the range is of whole ones.
    pub fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, String> {
        self.take(key, |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("expected a number from {} to {}", range.start(), range.end())),
        })
    }

    pub fn word<T: ValueEnum>(&mut self, key: &'static str) -> Result<Option<T>, String> {
        self.take(key, |text| {
            let values = T::value_variants().iter().filter_map(T::to_possible_value);
            let words: Vec<String> = values.map(|value| value.get_name().into()).collect();
            T::from_str(text, false).map_err(|_| format!("expected one of {}", words.join(", ")))
        })
    }

    pub fn layers(&mut self, key: &'static str) -> Result<Option<Layers>, String> {
        self.take(key, str::parse)
    }

    /// Refuses what was not taken.
    pub fn end(self) -> Result<(), String> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{key:?} is unknown (known: {})", self.known.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_be_a_list() {
        let mut options = Options::parse("window=3,5,-1,k=2").unwrap();
        let layers = options.layers("window").unwrap().unwrap();
        assert_eq!(layers.of(10).unwrap(), [3, 5, 9]);
        assert_eq!(options.number("k", 1..=9).unwrap(), Some(2));
        assert_eq!(options.number("gamma", 0.0..=1.0).unwrap(), None);
        options.end().unwrap();
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_key() {
        assert!(Options::parse("k").is_err() && Options::parse("k=1,k=2").is_err() && Options::parse(",k=1").is_err());
        let mut options = Options::parse("k=1.5,gamma=-1,window=x,more=1").unwrap();
        for cause in [
            options.number("k", 1..=9).unwrap_err(),
            options.number("gamma", 0.0..=1.0).unwrap_err(),
            options.layers("window").unwrap_err(),
        ] {
            assert!(cause.contains(": "), "{cause}");
        }
        assert!(options.end().unwrap_err().contains("known: k, gamma, window"));
    }
}
