//! The tensors a dump holds, by site and layer, and the choice among them.

use super::{Layer, Part};
use process::{Error, Layers, Result, ResultExt};
use std::collections::{BTreeMap, BTreeSet};

/// Tensors of the parts, by site and layer.
pub(super) struct Found {
    pub(super) moments: bool,
    pub(super) sites: BTreeMap<String, BTreeMap<u32, String>>,
}

impl Found {
    pub(super) fn new(parts: &[Part], names: Option<&BTreeSet<String>>) -> Result<Self> {
        let mut rows: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
        let mut moments: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
        let part = &parts[0];
        for spec in &part.file.header().tensors {
            if names.is_some_and(|names| !names.contains(&spec.name)) && spec.role != acts::Role::Moments {
                continue;
            }
            match spec.role {
                acts::Role::Activations | acts::Role::Data if spec.dtype.is_float() => {
                    let (site, layer) = match (spec.site, spec.layer_index) {
                        (Some(site), layer) => (site.to_string(), layer.unwrap_or(0)),
                        (None, _) => split_name(&spec.name),
                    };
                    rows.entry(site).or_default().insert(layer, spec.name.clone());
                }
                acts::Role::Moments => {
                    if let [_, _, site, layer, _, "mean"] = spec.name.split('.').collect::<Vec<_>>()[..]
                        && let Ok(layer) = layer.parse()
                    {
                        moments
                            .entry(site.to_owned())
                            .or_default()
                            .insert(layer, spec.name.clone());
                    }
                }
                _ => {}
            }
        }
        match (rows.is_empty(), moments.is_empty()) {
            (true, true) => Err(Error::input(&part.name, "holds no activations and no moments")),
            (true, false) => Ok(Self {
                moments: true,
                sites: moments,
            }),
            _ => Ok(Self {
                moments: false,
                sites: rows,
            }),
        }
    }

    pub(super) fn choose_site(&self, wish: Option<String>, parts: &[Part]) -> Result<String> {
        let known = || self.sites.keys().cloned().collect::<Vec<_>>().join(", ");
        match wish {
            Some(site) if self.sites.contains_key(&site) => Ok(site),
            Some(site) => Err(Error::input(&parts[0].name, format!("there is no site \"{site}\""))
                .hint(format!("sites: {}", known()))),
            None if self.sites.contains_key("resid_post") => Ok("resid_post".to_owned()),
            None if self.sites.len() == 1 => Ok(self.sites.keys().next().cloned().unwrap_or_default()),
            None => Err(Error::usage(
                "--site",
                format!("the container holds several: {}", known()),
            )),
        }
    }

    pub(super) fn layer(&self, site: &str, index: u32, parts: &[Part]) -> Result<Layer> {
        let name = &self.sites[site][&index];
        let mut layer: Option<Layer> = None;
        for part in parts {
            let tensor = part.file.tensor(name).at(&part.name)?;
            let spec = part.file.spec(tensor).at(&part.name)?;
            let [width] = spec.row_shape[..] else {
                return Err(Error::input(
                    &part.name,
                    format!(
                        "{name} has rows of rank {}, and a row here is a vector",
                        spec.row_shape.len()
                    ),
                ));
            };
            let width = width as usize;
            match &mut layer {
                None => {
                    layer = Some(Layer {
                        index,
                        width,
                        tensors: Vec::new(),
                        dtype: spec.dtype,
                    })
                }
                Some(layer) if layer.width != width || layer.dtype != spec.dtype => {
                    return Err(Error::input(
                        &part.name,
                        format!("{name} differs in width or type from {}", parts[0].name),
                    ));
                }
                Some(_) => {}
            }
            if let (Some(layer), false) = (&mut layer, self.moments) {
                layer.tensors.push(tensor);
            }
        }
        layer.ok_or_else(|| Error::bug(name, "no container"))
    }
}

/// `name.3` is layer 3 of `name`; a name without a number is one layer.
fn split_name(name: &str) -> (String, u32) {
    match name
        .rsplit_once('.')
        .map(|(stem, number)| (stem, number.parse::<u32>()))
    {
        Some((stem, Ok(layer))) => (stem.to_owned(), layer),
        _ => (name.to_owned(), 0),
    }
}

/// BOUND: no model has more blocks; the number comes from the file, and depth windows are counted through.
const LAYER_COUNT_MAX: u64 = 1 << 16;

/// Blocks of the model, where the header says it.
pub(super) fn layer_count(parts: &[Part], available: &BTreeMap<u32, String>) -> Result<Option<u32>> {
    let Some(said) = parts[0].file.header().meta.get("layer_count") else {
        return Ok(None);
    };
    let last = available.keys().next_back().map_or(0, |last| u64::from(*last));
    match said.as_u64() {
        Some(count) if last < count && count <= LAYER_COUNT_MAX => Ok(Some(count as u32)),
        _ => Err(Error::input(
            &parts[0].name,
            format!("is of a model with {said} layers, and holds layer {last}; limit {LAYER_COUNT_MAX}"),
        )),
    }
}

/// The chosen layers, ascending. A window of depth takes what there is of it; a layer that was named must be there.
pub(super) fn select_layers(wish: &Layers, available: &[u32], layer_count: Option<u32>) -> Result<Vec<u32>> {
    let layer_count = match (wish, layer_count) {
        (_, Some(count)) => count,
        (Layers::Depth(..), None) => {
            return Err(Error::input(
                "--layers",
                "the input does not say how many blocks its model has, so it knows no depth",
            )
            .hint("name the layers by their indices"));
        }
        (_, None) => available.last().map_or(0, |last| last + 1),
    };
    let wished = wish
        .of(layer_count as usize)
        .map_err(|cause| Error::usage("--layers", cause))?;
    let (found, missing): (Vec<u32>, Vec<u32>) = wished
        .into_iter()
        .map(|layer| layer as u32)
        .partition(|layer| available.contains(layer));
    let known = || available.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match (wish, missing.first()) {
        (Layers::Listed(_), Some(layer)) => Err(Error::input("--layers", format!("layer {layer} is not in the input"))
            .hint(format!("layers there: {}", known()))),
        _ if found.is_empty() => Err(Error::input("--layers", format!("no layer of {wish} is in the input"))
            .hint(format!("layers there: {}", known()))),
        _ => Ok(found),
    }
}
