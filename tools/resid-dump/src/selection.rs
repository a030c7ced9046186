//! Which token positions: the words of the flag and what they mean for a prompt.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// `--positions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    Last,
    All,
    /// One row: the mean over all tokens.
    Mean,
    Completion,
    PromptLast,
    Index(i64),
}

impl FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "last" => Self::Last,
            "all" => Self::All,
            "mean" => Self::Mean,
            "completion" => Self::Completion,
            "prompt-last" => Self::PromptLast,
            number => {
                Self::Index(number.parse().map_err(|_| {
                    format!("{text:?} is none of last, all, mean, completion, prompt-last, or an index")
                })?)
            }
        })
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => out.write_str("last"),
            Self::All => out.write_str("all"),
            Self::Mean => out.write_str("mean"),
            Self::Completion => out.write_str("completion"),
            Self::PromptLast => out.write_str("prompt-last"),
            Self::Index(index) => write!(out, "{index}"),
        }
    }
}

impl Positions {
    /// Whether a completion is run behind the prompt.
    pub fn needs_completion(self) -> bool {
        matches!(self, Self::Completion | Self::PromptLast)
    }

    /// The token positions of a sequence whose first `prompt_count` of `token_count` tokens are the prompt.
    pub fn of(self, token_count: usize, prompt_count: usize) -> Result<Range<usize>, String> {
        Ok(match self {
            Self::Last => token_count - 1..token_count,
            Self::All | Self::Mean => 0..token_count,
            Self::Completion => prompt_count..token_count,
            Self::PromptLast => prompt_count - 1..prompt_count,
            Self::Index(index) => {
                let count = token_count as i64;
                let at = if index < 0 { count + index } else { index };
                if !(0..count).contains(&at) {
                    return Err(format!("has {token_count} tokens, none at position {index}"));
                }
                at as usize..at as usize + 1
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_choose_within_the_sequence() {
        assert_eq!(Positions::Last.of(7, 7).unwrap(), 6..7);
        assert_eq!(Positions::Completion.of(7, 4).unwrap(), 4..7);
        assert_eq!(Positions::PromptLast.of(7, 4).unwrap(), 3..4);
        assert_eq!(Positions::Index(-2).of(7, 7).unwrap(), 5..6);
        assert!(Positions::Index(7).of(7, 7).is_err());
        assert!(Positions::Index(-8).of(7, 7).is_err());
    }
}
