//! Which layers attend to a sliding window only, and how long it is.

use serde_json::Value;

use super::keys::{Keys, POSITIONS_MAX, wrong};
use crate::config::Config;
use crate::error::{Error, Result};

/// `sliding_window`, or `default` where the key is absent; null means that nothing slides.
pub(super) fn length(keys: &Keys, default: Option<usize>) -> Result<Option<usize>> {
    let length = keys.size_at_most("sliding_window", POSITIONS_MAX)?;
    Ok(if keys.has("sliding_window") { length } else { default })
}

/// Sets the window of the layers that `layer_types` names, or that `slides` picks where it is absent.
pub(super) fn set(
    config: &mut Config,
    keys: &Keys,
    length: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<()> {
    let types = keys.list("layer_types", config.layers.len(), "names")?;
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let slides = match types {
            None => slides(index),
            Some(types) => is_sliding(&types[index])?,
        };
        if slides && length.is_none() && types.is_some() {
            return Err(Error::Config(
                "layer_types names sliding_attention but sliding_window is absent".into(),
            ));
        }
        layer.window = length.filter(|_| slides);
    }
    Ok(())
}

fn is_sliding(layer_type: &Value) -> Result<bool> {
    match layer_type.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(wrong("layer_types", layer_type, "full_attention or sliding_attention")),
    }
}
