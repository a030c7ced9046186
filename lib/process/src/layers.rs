//! Which blocks of a model: one grammar for every flag of every tool, and what it means for a model of L blocks.

use std::fmt;
use std::str::FromStr;

/// `all`, `4-12`, `3,5,7`, `-1` (from the end), or a window of depth such as `0.3-0.5`.
#[derive(Clone, Debug, PartialEq)]
pub enum Layers {
    All,
    /// Inclusive ranges of 0-based blocks; a negative one counts from the end, -1 being the last.
    Listed(Vec<(i64, i64)>),
    /// Blocks l with a ≤ (l + 1) / L ≤ b.
    Depth(f64, f64),
}

/// Slack at the borders of a depth window, so that 0.3 of 10 layers is what one expects.
const DEPTH_SLACK: f64 = 1e-9;

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text {
            "all" => Some(Self::All),
            _ if text.contains('.') => window(text),
            _ => text.split(',').map(range).collect::<Option<_>>().map(Self::Listed),
        };
        parsed.ok_or_else(|| {
            format!("{text:?} is not `all`, a list such as 0,5,7-9 or -1, or a window of depth such as 0.3-0.5")
        })
    }
}

fn window(text: &str) -> Option<Layers> {
    let (from, to) = text.split_once('-')?;
    let (from, to): (f64, f64) = (from.parse().ok()?, to.parse().ok()?);
    (0.0 <= from && from <= to && to <= 1.0).then_some(Layers::Depth(from, to))
}

/// `3`, `-1`, `4-12`, `-4--1`, `2--1`.
fn range(text: &str) -> Option<(i64, i64)> {
    // A hyphen that follows a digit is a range's; any other is a sign.
    let hyphen = text.bytes().skip(1).position(|byte| byte == b'-').map(|at| at + 1);
    let (first, last) = match hyphen {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, text),
    };
    let (first, last) = (index(first)?, index(last)?);
    let is_backwards = (first < 0) == (last < 0) && first > last;
    (!is_backwards).then_some((first, last))
}

fn index(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

impl fmt::Display for Layers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("all"),
            Self::Depth(from, to) => write!(out, "{from:?}-{to:?}"),
            Self::Listed(ranges) => {
                for (at, (first, last)) in ranges.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    match first == last {
                        true => write!(out, "{comma}{first}")?,
                        false => write!(out, "{comma}{first}-{last}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Layers {
    /// The chosen blocks of a model, ascending, once each; an empty choice, or a block that the model has not, is refused.
    pub fn of(&self, layer_count: usize) -> Result<Vec<usize>, String> {
        let mut chosen = match self {
            Self::All => (0..layer_count).collect(),
            Self::Depth(from, to) => (0..layer_count)
                .filter(|layer| {
                    let depth = (layer + 1) as f64 / layer_count as f64;
                    depth >= from - DEPTH_SLACK && depth <= to + DEPTH_SLACK
                })
                .collect(),
            Self::Listed(ranges) => listed(ranges, layer_count)?,
        };
        chosen.sort_unstable();
        chosen.dedup();
        match chosen.is_empty() {
            true => Err(format!("{self} holds no layer of {layer_count}")),
            false => Ok(chosen),
        }
    }

    /// The one chosen block, where a flag means one.
    pub fn one_of(&self, layer_count: usize) -> Result<usize, String> {
        match self.of(layer_count)?[..] {
            [only] => Ok(only),
            ref many => Err(format!("{self} holds {} layers, and one is meant", many.len())),
        }
    }
}

fn listed(ranges: &[(i64, i64)], layer_count: usize) -> Result<Vec<usize>, String> {
    let absolute = |index: i64| {
        let counted = if index < 0 { layer_count as i64 + index } else { index };
        match usize::try_from(counted) {
            Ok(layer) if layer < layer_count => Ok(layer),
            _ => Err(format!(
                "there is no layer {index}: the model has {layer_count}, from 0"
            )),
        }
    };
    let mut layers = Vec::new();
    for &(first, last) in ranges {
        // BOUND: both ends were found within the model.
        layers.extend(absolute(first)?..=absolute(last)?);
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str, layer_count: usize) -> Result<Vec<usize>, String> {
        text.parse::<Layers>()?.of(layer_count)
    }

    #[test]
    fn a_window_of_depth_holds_the_blocks_the_paper_means() {
        assert_eq!(chosen("0.3-0.5", 16).unwrap(), [4, 5, 6, 7]);
        assert_eq!(chosen("0.3-0.5", 32).unwrap(), (9..16).collect::<Vec<_>>());
        assert_eq!(chosen("0.1-0.3", 10).unwrap(), [0, 1, 2]);
        assert!(chosen("0.01-0.02", 4).unwrap_err().contains("no layer"));
    }

    #[test]
    fn lists_are_sorted_once_each_and_bounded() {
        assert_eq!(chosen("7-9,0,8", 10).unwrap(), [0, 7, 8, 9]);
        assert_eq!(chosen("all", 3).unwrap(), [0, 1, 2]);
        assert!(chosen("7-10", 10).unwrap_err().contains("layer 10"));
        assert!(chosen("0-9000000000000000000", 10).is_err());
    }

    #[test]
    fn negative_layers_count_from_the_end() {
        assert_eq!(chosen("-1", 10).unwrap(), [9]);
        assert_eq!(chosen("-3--1", 10).unwrap(), [7, 8, 9]);
        assert_eq!(chosen("8--1,0", 10).unwrap(), [0, 8, 9]);
        assert!(chosen("-11", 10).unwrap_err().contains("layer -11"));
        assert!(chosen("9--3", 10).unwrap_err().contains("no layer"));
    }

    #[test]
    fn a_flag_that_means_one_layer_takes_no_two() {
        let one = |text: &str| text.parse::<Layers>().unwrap().one_of(10);
        assert_eq!((one("-1"), one("3")), (Ok(9), Ok(3)));
        assert!(one("3-4").unwrap_err().contains("holds 2 layers"));
    }

    #[test]
    fn what_is_no_choice_of_layers_is_refused() {
        for text in [
            "", "x", "3-1", "-1--3", "1,", "0.5", "0.5-0.3", "0.5-2.0", "--1", "1-", "+1", "1 ", "-",
        ] {
            assert!(text.parse::<Layers>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_what_is_read() {
        for text in ["all", "0,5,7-9", "-1", "-4--1,2", "0.3-0.5"] {
            assert_eq!(text.parse::<Layers>().unwrap().to_string(), text);
        }
    }
}
