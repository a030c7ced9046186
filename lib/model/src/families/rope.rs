//! Rotary positions as config.json spells them: `rope_theta` and `rope_scaling`, or `rope_parameters`.

use serde_json::{Map, Value};

use super::keys::{self, Keys, POSITIONS_MAX};
use crate::config::{Config, Rope, RopeScaling};
use crate::error::{Error, Result};

/// What is taken where config.json does not say it.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    pub theta: f64,
    /// The share of a head's dimensions that rotate.
    pub share: f64,
}

/// The rope of a decoder that has one.
pub(super) fn read(config: &mut Config, keys: &Keys, defaults: Defaults) -> Result<Rope> {
    // GPT-NeoX's own spellings come second; where both stand they agree
    let (theta, base) = (keys.positive("rope_theta")?, keys.positive("rotary_emb_base")?);
    let (share, percent) = (keys.positive("partial_rotary_factor")?, keys.positive("rotary_pct")?);
    let defaults = Defaults {
        theta: theta.or(base).unwrap_or(defaults.theta),
        share: share.or(percent).unwrap_or(defaults.share),
    };
    let legacy = keys.object("rope_scaling")?;
    let object = keys.object("rope_parameters")?.or(legacy);
    of(config, keys, object, defaults)
}

/// The rope that `object` describes, or the plain one. One that was trained on fewer positions than `config` says
/// lowers their number.
pub(super) fn of(
    config: &mut Config,
    keys: &Keys,
    object: Option<&Map<String, Value>>,
    defaults: Defaults,
) -> Result<Rope> {
    let empty = Map::new();
    let own = Keys::new(object.unwrap_or(&empty));
    let theta = own.positive("rope_theta")?.unwrap_or(defaults.theta);
    let share = own.positive("partial_rotary_factor")?.unwrap_or(defaults.share);
    if share > 1.0 {
        return Err(Error::Config(format!("partial_rotary_factor = {share} is above 1")));
    }
    let dims = (config.head_dim as f64 * share) as usize;
    let original = keys.size_at_most("original_max_position_embeddings", POSITIONS_MAX)?;
    let (modern, legacy) = (own.text("rope_type")?, own.text("type")?);
    let scaling = match modern.or(legacy).unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: needed(&own, "linear", "factor")?,
        },
        "llama3" => llama3(&own, original)?,
        "longrope" => longrope(&own, original, dims, config)?,
        other => return Err(Error::Config(format!("rope type {other:?} is not computed here"))),
    };
    own.refuse_unread()?;
    Ok(Rope { theta, dims, scaling })
}

fn llama3(own: &Keys, original: Option<usize>) -> Result<RopeScaling> {
    let (low, high) = ("low_freq_factor", "high_freq_factor");
    let (low_freq_factor, high_freq_factor) = (needed(own, "llama3", low)?, needed(own, "llama3", high)?);
    if low_freq_factor >= high_freq_factor {
        return Err(Error::Config(format!(
            "{low} = {low_freq_factor} is not below {high} = {high_freq_factor}"
        )));
    }
    Ok(RopeScaling::Llama3 {
        factor: needed(own, "llama3", "factor")?,
        low_freq_factor,
        high_freq_factor,
        original_positions: pretrained(own, "llama3", original)?,
    })
}

fn longrope(own: &Keys, original: Option<usize>, dims: usize, config: &mut Config) -> Result<RopeScaling> {
    let short_factor = factors(own, "short_factor", dims / 2)?;
    factors(own, "long_factor", dims / 2)?;
    own.positive("factor")?;
    let pretrained = pretrained(own, "longrope", original)?;
    let stretch = config.position_count as f64 / pretrained as f64;
    let default = if stretch > 1.0 {
        (1.0 + stretch.ln() / (pretrained as f64).ln()).sqrt()
    } else {
        1.0
    };
    // beyond the pretrained length every position would rotate otherwise, also the earlier ones
    config.position_count = config.position_count.min(pretrained);
    Ok(RopeScaling::LongRope {
        short_factor,
        attention_factor: own.positive("attention_factor")?.unwrap_or(default),
    })
}

/// The length before the scaling.
fn pretrained(own: &Keys, kind: &str, outside: Option<usize>) -> Result<usize> {
    let key = "original_max_position_embeddings";
    own.size_at_most(key, POSITIONS_MAX)?
        .or(outside)
        .ok_or_else(|| lacks(kind, key))
}

fn factors(own: &Keys, key: &str, count: usize) -> Result<Vec<f64>> {
    let list = own.list(key, count, "numbers")?.ok_or_else(|| lacks("longrope", key))?;
    list.iter().map(|value| keys::positive(key, value)).collect()
}

fn needed(own: &Keys, kind: &str, key: &str) -> Result<f64> {
    own.positive(key)?.ok_or_else(|| lacks(kind, key))
}

fn lacks(kind: &str, key: &str) -> Error {
    Error::Config(format!("rope scaling {kind:?} lacks {key}"))
}
