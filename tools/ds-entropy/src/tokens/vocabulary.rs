//! Token strings and their dense ids. A string is stored once; an id is its place in the order of interning.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Strings by number.
#[derive(Default)]
pub struct Strings {
    text: String,
    /// Where each string ends in `text`.
    ends: Vec<usize>,
}

impl Strings {
    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    pub fn get(&self, id: u32) -> &str {
        let at = id as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Strings that also know their numbers.
#[derive(Default)]
pub struct Vocabulary {
    hasher: DefaultHashBuilder,
    ids: HashTable<u32>,
    strings: Strings,
}

impl Vocabulary {
    /// The id of `token`, new or known.
    ///
    /// # Panics
    /// At 2^32 - 1 distinct tokens, whose strings alone would take more memory than any machine gives a process.
    pub fn intern(&mut self, token: &str) -> u32 {
        let Self { hasher, ids, strings } = self;
        let hash = hasher.hash_one(token);
        match ids.entry(
            hash,
            |&id| strings.get(id) == token,
            |&id| hasher.hash_one(strings.get(id)),
        ) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let id = u32::try_from(strings.len())
                    .ok()
                    .filter(|&id| id < u32::MAX)
                    .expect("fewer than 2^32 - 1 distinct tokens");
                vacant.insert(id);
                strings.push(token);
                id
            }
        }
    }

    pub fn strings(&self) -> &Strings {
        &self.strings
    }

    pub fn into_strings(self) -> Strings {
        self.strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_its_id_and_its_text() {
        let mut vocabulary = Vocabulary::default();
        let words: Vec<String> = (0..1000).map(|n| format!("w{n}")).collect();
        for _ in 0..2 {
            let ids: Vec<u32> = words.iter().map(|word| vocabulary.intern(word)).collect();
            assert_eq!(ids, (0..1000).collect::<Vec<u32>>());
        }
        let strings = vocabulary.into_strings();
        assert_eq!(strings.len(), 1000);
        assert_eq!(strings.get(0), "w0");
        assert_eq!(strings.get(999), "w999");
    }
}
