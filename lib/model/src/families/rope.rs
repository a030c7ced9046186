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

/// The two ropes of a decoder whose sliding layers rotate otherwise: that of the layers that see everything, and theirs.
pub(super) fn of_kinds(config: &mut Config, keys: &Keys, full: Defaults, sliding: Defaults) -> Result<[Rope; 2]> {
    let legacy = keys.object("rope_scaling")?;
    let Some(both) = keys.object("rope_parameters")? else {
        return Ok([of(config, keys, legacy, full)?, of(config, keys, None, sliding)?]);
    };
    let both = Keys::new(both);
    let (Some(of_full), Some(of_sliding)) = (both.object("full_attention")?, both.object("sliding_attention")?) else {
        return Err(Error::Config(
            "rope_parameters lacks full_attention or sliding_attention".into(),
        ));
    };
    both.refuse_unread()?;
    Ok([
        of(config, keys, Some(of_full), full)?,
        of(config, keys, Some(of_sliding), sliding)?,
    ])
}

/// Gives each layer the first or the second of `ropes`, as it sees everything or slides.
pub(super) fn set_kinds(config: &mut Config, ropes: [Rope; 2]) {
    config.ropes = ropes.into();
    for layer in &mut config.layers {
        layer.rope = Some(usize::from(layer.window.is_some()));
    }
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
        "yarn" => yarn(&own, original, dims, theta, config)?,
        "dynamic" => {
            needed(&own, "dynamic", "factor")?;
            // plain as far as `max_position_embeddings`; in a longer sequence every position would rotate otherwise
            RopeScaling::None
        }
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

/// Frequencies that turn more than `beta_fast` times within the pretrained length are kept, those that turn less than
/// `beta_slow` times are slowed.
fn yarn(own: &Keys, original: Option<usize>, dims: usize, theta: f64, config: &mut Config) -> Result<RopeScaling> {
    let pretrained = pretrained(own, "yarn", original)?;
    let given = own.positive("factor")?;
    let factor = given.unwrap_or(config.position_count as f64 / pretrained as f64);
    let fast = own.positive("beta_fast")?.unwrap_or(32.0);
    let slow = own.positive("beta_slow")?.unwrap_or(1.0);
    let place = |turns: f64| {
        let wavelength = pretrained as f64 / (turns * 2.0 * std::f64::consts::PI);
        dims as f64 * wavelength.ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (place(fast), place(slow));
    if own.flag("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
    if !(low.is_finite() && low <= high) {
        return Err(Error::Config(format!(
            "rope scaling \"yarn\" mixes the dimensions {low} to {high}, which is no range"
        )));
    }
    if low == high {
        high += 0.001; // a step
    }
    own.get("max_position_embeddings"); // stands in Ministral 3's and is not used
    if own.positive("llama_4_scaling_beta")?.is_some() {
        // from there on queries would grow with their position
        config.position_count = config.position_count.min(pretrained);
    }
    let grown = |weight: f64| {
        if factor > 1.0 {
            0.1 * weight * factor.ln() + 1.0
        } else {
            1.0
        }
    };
    let default = match (own.number("mscale")?, own.number("mscale_all_dim")?) {
        (Some(one), Some(all)) if one != 0.0 && all != 0.0 => grown(one) / grown(all),
        _ => grown(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        ramp: (low, high),
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
