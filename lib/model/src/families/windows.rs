//! Which layers attend to a sliding window only, and how long it is.

use serde_json::Value;

use super::keys::{Keys, POSITIONS_MAX, wrong};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ops::Window;

/// `sliding_window`, or `default` where the key is absent; null means that nothing slides.
pub(super) fn length(keys: &Keys, default: Option<usize>) -> Result<Option<usize>> {
    let length = keys.size_at_most("sliding_window", POSITIONS_MAX)?;
    Ok(if keys.has("sliding_window") { length } else { default })
}

/// All layers slide, or none does.
pub(super) fn set_all(config: &mut Config, length: Option<usize>) {
    let window = length.map(Window::Sliding);
    config.layers.iter_mut().for_each(|layer| layer.window = window);
}

/// Sets the window of the layers that `layer_types` names, or that `slides` picks where it is absent.
pub(super) fn set(
    config: &mut Config,
    keys: &Keys,
    length: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<()> {
    let kind = Kind {
        name: "sliding_attention",
        key: "sliding_window",
        window: length.map(Window::Sliding),
    };
    set_kind(config, keys, kind, slides)
}

/// A kind of attention that does not see everything.
pub(super) struct Kind {
    /// In `layer_types`.
    pub name: &'static str,
    /// The key of its length.
    pub key: &'static str,
    pub window: Option<Window>,
}

/// As [`set`], of another kind.
pub(super) fn set_kind(config: &mut Config, keys: &Keys, kind: Kind, has_it: impl Fn(usize) -> bool) -> Result<()> {
    let types = keys.list("layer_types", config.layers.len(), "names")?;
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let has_it = match types {
            None => has_it(index),
            Some(types) => is_of_kind(&types[index], kind.name)?,
        };
        if has_it && kind.window.is_none() && types.is_some() {
            return Err(Error::Config(format!(
                "layer_types names {} but {} is absent",
                kind.name, kind.key
            )));
        }
        layer.window = kind.window.filter(|_| has_it);
    }
    Ok(())
}

fn is_of_kind(layer_type: &Value, kind: &str) -> Result<bool> {
    match layer_type.as_str() {
        Some(name) if name == kind => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(wrong("layer_types", layer_type, &format!("full_attention or {kind}"))),
    }
}
