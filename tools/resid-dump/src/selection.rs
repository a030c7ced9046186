//! Which layers and which token positions: the words of the flags and what they mean for a model and a prompt.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// `--layers`.
#[derive(Clone, Debug, PartialEq)]
pub enum Layers {
    All,
    /// Inclusive ranges of 0-based blocks.
    Listed(Vec<(usize, usize)>),
    /// Blocks l with a ≤ (l + 1) / L ≤ b.
    Depth(f64, f64),
}

/// Slack at the borders of a depth window, so that 0.3 of 10 layers is what one expects.
const DEPTH_SLACK: f64 = 1e-9;

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("{text:?} is not `all`, a list such as 0,5,7-9, or a window of depth such as 0.3-0.5");
        if text == "all" {
            return Ok(Self::All);
        }
        if text.contains('.') {
            let (a, b) = text.split_once('-').ok_or_else(malformed)?;
            let depth = |text: &str| {
                text.parse::<f64>()
                    .ok()
                    .filter(|x| (0.0..=1.0).contains(x))
                    .ok_or_else(malformed)
            };
            let (a, b) = (depth(a)?, depth(b)?);
            return if a <= b {
                Ok(Self::Depth(a, b))
            } else {
                Err(malformed())
            };
        }
        let number = |text: &str| text.parse::<usize>().map_err(|_| malformed());
        let ranges = text.split(',').map(|part| match part.split_once('-') {
            None => number(part).map(|only| (only, only)),
            Some((first, last)) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Ok((first, last)),
                _ => Err(malformed()),
            },
        });
        ranges.collect::<Result<_, _>>().map(Self::Listed)
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("all"),
            Self::Depth(a, b) => write!(out, "{a:?}-{b:?}"),
            Self::Listed(ranges) => {
                let parts: Vec<_> = ranges
                    .iter()
                    .map(|(first, last)| {
                        if first == last {
                            first.to_string()
                        } else {
                            format!("{first}-{last}")
                        }
                    })
                    .collect();
                out.write_str(&parts.join(","))
            }
        }
    }
}

impl Layers {
    /// The chosen blocks of a model, ascending; an empty choice, or a block beyond the last, is refused.
    pub fn of(&self, layer_count: usize) -> Result<Vec<usize>, String> {
        let chosen: Vec<usize> = match self {
            Self::All => (0..layer_count).collect(),
            Self::Depth(a, b) => (0..layer_count)
                .filter(|layer| {
                    let depth = (layer + 1) as f64 / layer_count as f64;
                    depth >= a - DEPTH_SLACK && depth <= b + DEPTH_SLACK
                })
                .collect(),
            Self::Listed(ranges) => {
                if let Some((_, beyond)) = ranges.iter().find(|(_, last)| *last >= layer_count) {
                    return Err(format!("layer {beyond} is beyond the last, {}", layer_count - 1));
                }
                let mut layers: Vec<_> = ranges.iter().flat_map(|&(first, last)| first..=last).collect();
                layers.sort_unstable();
                layers.dedup();
                layers
            }
        };
        match chosen.is_empty() {
            true => Err(format!("{self} holds no layer of {layer_count}")),
            false => Ok(chosen),
        }
    }
}

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
    fn a_window_of_depth_holds_the_blocks_the_paper_means() {
        let window: Layers = "0.3-0.5".parse().unwrap();
        assert_eq!(window.of(16).unwrap(), [4, 5, 6, 7]);
        assert_eq!(window.of(32).unwrap(), (9..16).collect::<Vec<_>>());
        assert_eq!("0.1-0.3".parse::<Layers>().unwrap().of(10).unwrap(), [0, 1, 2]);
        assert!(
            "0.01-0.02"
                .parse::<Layers>()
                .unwrap()
                .of(4)
                .unwrap_err()
                .contains("no layer")
        );
    }

    #[test]
    fn lists_are_sorted_once_each_and_bounded() {
        assert_eq!("7-9,0,8".parse::<Layers>().unwrap().of(10).unwrap(), [0, 7, 8, 9]);
        assert!(
            "7-10"
                .parse::<Layers>()
                .unwrap()
                .of(10)
                .unwrap_err()
                .contains("layer 10")
        );
        for text in ["", "x", "3-1", "1,", "0.5", "0.5-0.3", "-1", "0.5-2.0"] {
            assert!(text.parse::<Layers>().is_err(), "{text}");
        }
    }

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
