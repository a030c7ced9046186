//! Opening templates: how many samples begin with the same words.
//!
//! Samples that share their first `--opening` tokens form a class (a shorter sample is its own opening). A class of two or more
//! is a template; its text is everything its samples have in common from the start, up to a bound.

use std::collections::HashMap;

use process::Result;

use crate::store::Reader;
use crate::tokens::Strings;

/// A template's text is not followed further than this.
const SHARED_TOKENS_MAX: usize = 32;
const EXAMPLE_COUNT: usize = 3;

#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    pub sample_count: u64,
    /// What all samples of the class begin with.
    pub tokens: Vec<u32>,
    /// The first samples of the class, by their place in the group.
    pub examples: Vec<usize>,
}

struct Class {
    sample_count: u64,
    examples: Vec<usize>,
}

/// The templates with most samples, in descending order; equal ones in the order of their openings' texts.
pub fn rank(reader: &Reader, opening_len: usize, template_count: usize, strings: &Strings) -> Result<Vec<Template>> {
    let mut classes: HashMap<Box<[u32]>, Class> = HashMap::new();
    let mut sample = 0;
    reader.for_each(|tokens| {
        let opening = &tokens[..tokens.len().min(opening_len)];
        match classes.get_mut(opening) {
            Some(class) => {
                class.sample_count += 1;
                if class.examples.len() < EXAMPLE_COUNT {
                    class.examples.push(sample);
                }
            }
            None => {
                classes.insert(
                    opening.into(),
                    Class {
                        sample_count: 1,
                        examples: vec![sample],
                    },
                );
            }
        }
        sample += 1;
        Ok(())
    })?;
    let mut ranked: Vec<(Box<[u32]>, Class)> = classes
        .into_iter()
        .filter(|(_, class)| class.sample_count > 1)
        .collect();
    ranked.sort_unstable_by(|(opening_a, a), (opening_b, b)| {
        let texts = |opening: &'_ [u32]| opening.iter().map(|&id| strings.get(id)).collect::<Vec<_>>();
        b.sample_count
            .cmp(&a.sample_count)
            .then_with(|| texts(opening_a).cmp(&texts(opening_b)))
    });
    ranked.truncate(template_count);

    let mut shared: HashMap<&[u32], Option<Vec<u32>>> = ranked.iter().map(|(opening, _)| (&**opening, None)).collect();
    reader.for_each(|tokens| {
        if let Some(common) = shared.get_mut(&tokens[..tokens.len().min(opening_len)]) {
            match common {
                None => *common = Some(tokens[..tokens.len().min(SHARED_TOKENS_MAX)].to_vec()),
                Some(common) => common.truncate(common.iter().zip(tokens).take_while(|(a, b)| a == b).count()),
            }
        }
        Ok(())
    })?;
    let texts: Vec<Vec<u32>> = ranked
        .iter()
        .map(|(opening, _)| shared.remove(&**opening).flatten().unwrap_or_default())
        .collect();
    Ok(ranked
        .into_iter()
        .zip(texts)
        .map(|((_, class), tokens)| Template {
            sample_count: class.sample_count,
            tokens,
            examples: class.examples,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stream;

    #[test]
    fn classes_are_ranked_and_their_text_is_what_they_share() {
        let mut strings = Strings::default();
        for word in ["i", "can", "not", "help", "with", "that", "this", "no"] {
            strings.push(word);
        }
        let mut stream = Stream::default();
        for tokens in [
            &[0, 1, 2, 3, 4, 5][..],
            &[7],
            &[0, 1, 2, 3, 4, 6],
            &[0, 2],
            &[7],
            &[0, 1, 2, 3, 4, 5],
            &[7],
            &[0, 1, 2, 3, 4, 5],
        ] {
            stream.push(tokens);
        }
        let templates = rank(&Reader::new(&stream, None), 3, 10, &strings).unwrap();
        assert_eq!(
            templates,
            [
                Template {
                    sample_count: 4,
                    tokens: vec![0, 1, 2, 3, 4],
                    examples: vec![0, 2, 5]
                },
                Template {
                    sample_count: 3,
                    tokens: vec![7],
                    examples: vec![1, 4, 6]
                },
            ]
        );
        assert_eq!(rank(&Reader::new(&stream, None), 3, 1, &strings).unwrap().len(), 1);
    }
}
