//! Contrastive decoding: the next token is chosen by what two contexts say, and is put behind both.
//!
//! Self-contrast (arXiv 2401.17633) and its adaptive form (arXiv 2604.17132) set a prompt with a system message beside the same prompt
//! without; an amateur (arXiv 2210.15097) is another model under the same prompt.

use std::path::PathBuf;
use std::str::FromStr;

use numerics::statistics::{largest, softmax};
use serde::Serialize;

/// `--contrast`, as typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    pub rule: Rule,
    /// The other model; absent where the second context is this one's.
    pub amateur: Option<PathBuf>,
}

/// How the logits of both contexts become those that choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rule {
    /// (1 − α) l_s + α l_0, s with the system message and 0 without.
    #[serde(rename = "self")]
    Itself { alpha: f64 },
    /// See [`adapted`].
    Ada { alpha: f64 },
    /// l − α l_amateur
    Amateur { alpha: f64 },
}

/// What the adaptive form steers away from, unless a system message is given.
pub const ADA_SYSTEM: &str = "Please refuse to answer me!";
const ADA_ALPHA: f64 = 4.5;
/// Tokens that the adaptive form contrasts; the rest of a completion is plain.
const ADA_STEPS: usize = 10;
/// Ranks and confidences agree from here on.
const ADA_AGREEMENT: f64 = 0.9;
/// Tokens below this share of the largest probability are out.
const ADA_MASK: f64 = 0.01;

impl FromStr for Contrast {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is none of self:ALPHA, ada[:ALPHA], amateur=MODEL:ALPHA");
        let number = |text: &str| text.parse::<f64>().ok().filter(|alpha| alpha.is_finite());
        let of = |rule, amateur| Ok(Contrast { rule, amateur });
        if text == "ada" {
            return of(Rule::Ada { alpha: ADA_ALPHA }, None);
        }
        let (kind, alpha) = text.rsplit_once(':').ok_or_else(malformed)?;
        let alpha = number(alpha).ok_or_else(malformed)?;
        match (kind, kind.strip_prefix("amateur=")) {
            ("self", _) => of(Rule::Itself { alpha }, None),
            ("ada", _) => of(Rule::Ada { alpha }, None),
            (_, Some(model)) if !model.is_empty() => of(Rule::Amateur { alpha }, Some(model.into())),
            _ => Err(malformed()),
        }
    }
}

impl Rule {
    /// Whether the second context is the prompt without its system message.
    pub fn drops_system(self) -> bool {
        !matches!(self, Self::Amateur { .. })
    }

    /// The logits that choose token `step` of a completion, of those of the first and of the second context.
    pub fn combine(self, first: &[f32], second: &[f32], step: usize) -> Vec<f32> {
        let mix = |a: f64, b: f64| {
            let pairs = first.iter().zip(second);
            pairs
                .map(|(x, y)| (a * f64::from(*x) + b * f64::from(*y)) as f32)
                .collect()
        };
        match self {
            Self::Itself { alpha } => mix(1.0 - alpha, alpha),
            Self::Amateur { alpha } => mix(1.0, -alpha),
            Self::Ada { .. } if step >= ADA_STEPS => second.to_vec(),
            Self::Ada { alpha } => adapted(first, second, alpha),
        }
    }
}

/// p + α (p − q) where both contexts agree on the best token and on how sure they are of it, p − α (p − q) elsewhere; p with the system
/// message, q without. Tokens that q finds unlikely are out.
fn adapted(p: &[f32], q: &[f32], alpha: f64) -> Vec<f32> {
    let of_best = q[largest(p)];
    let rank = q.iter().filter(|&&x| x > of_best).count();
    let (of_p, of_q) = (softmax(p), softmax(q));
    let surest = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
    let agrees = 1.0 / (1.0 + rank as f64) >= ADA_AGREEMENT && surest(&of_q) >= ADA_AGREEMENT * surest(&of_p);
    let sign = if agrees { 1.0 } else { -1.0 };
    let least = ADA_MASK * surest(&of_q);
    let pairs = p.iter().zip(q).zip(&of_q);
    pairs
        .map(|((&p, &q), &probability)| match probability < least {
            true => f32::NEG_INFINITY,
            false => (f64::from(p) + sign * alpha * (f64::from(p) - f64::from(q))) as f32,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse::<Contrast>().unwrap().rule
    }

    #[test]
    fn flags_are_read_from_the_right() {
        assert_eq!(rule("self:2.5"), Rule::Itself { alpha: 2.5 });
        assert_eq!(rule("ada"), Rule::Ada { alpha: 4.5 });
        assert_eq!(rule("ada:-1"), Rule::Ada { alpha: -1.0 });
        let amateur: Contrast = "amateur=a:b=c:0.5".parse().unwrap();
        assert_eq!(
            (amateur.rule, amateur.amateur),
            (Rule::Amateur { alpha: 0.5 }, Some("a:b=c".into()))
        );
        for text in ["", "self", "self:x", "self:inf", "amateur=:1", "amateur=x", "other:1"] {
            assert!(text.parse::<Contrast>().is_err(), "{text}");
        }
    }

    #[test]
    fn at_zero_and_one_self_contrast_is_one_of_its_contexts_to_the_bit() {
        let (first, second) = ([0.1f32, -7.3, 1e-9], [3.3f32, 0.7, -1e9]);
        assert_eq!(Rule::Itself { alpha: 0.0 }.combine(&first, &second, 0), first);
        assert_eq!(Rule::Itself { alpha: 1.0 }.combine(&first, &second, 0), second);
        assert_eq!(Rule::Amateur { alpha: 0.0 }.combine(&first, &second, 0), first);
        assert_eq!(Rule::Itself { alpha: 2.5 }.combine(&[2.0], &[1.0], 0), [-0.5]);
        assert_eq!(Rule::Amateur { alpha: 0.5 }.combine(&[2.0], &[1.0], 0), [1.5]);
    }

    #[test]
    fn the_adaptive_form_goes_on_where_contexts_agree_and_back_where_they_do_not() {
        let ada = Rule::Ada { alpha: 2.0 };
        // the same best token, and q is surer of it
        assert_eq!(ada.combine(&[2.0, 1.0], &[3.0, 1.0], 0), [0.0, 1.0]);
        // another best token: p − 2 (p − q)
        assert_eq!(ada.combine(&[2.0, 1.0], &[1.0, 2.0], 0), [0.0, 3.0]);
        // the same one, but q is far less sure
        assert_eq!(ada.combine(&[4.0, 0.0], &[0.5, 0.0], 9), [-3.0, 0.0]);
        // a token that q finds unlikely is out, whatever p says
        assert_eq!(ada.combine(&[2.0, 1.0], &[9.0, 1.0], 0)[1], f32::NEG_INFINITY);
        assert_eq!(ada.combine(&[2.0, 1.0], &[1.0, 2.0], 10), [1.0, 2.0]);
    }
}
