//! Directions taken out of the residual stream, or added to it, while the model runs.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use model::{Config, Device, Point, Probe, Site, Tensor};
use process::{Error, Result, ResultExt};
use serde::Serialize;

/// What a flag asks for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    #[serde(skip)]
    pub path: PathBuf,
    /// Of the file.
    pub digest: String,
    /// Take this layer's direction everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_layer: Option<u32>,
    pub layers: Vec<usize>,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// x − r̂ (r̂·x), wherever the block writes to the residual stream.
    Ablate,
    /// x + scale · r̂ after the block.
    Add(f64),
}

/// The flags as typed: `FILE[@LAYER][:LAYERS]`, and for `--add` `FILE[@LAYER]:SCALE[:LAYERS]`.
pub fn parse(text: &str, adds: bool, layer_count: usize) -> Result<Request> {
    let flag = if adds { "--add" } else { "--ablate" };
    let malformed = |cause: &str| Error::usage(flag, format!("{text:?}: {cause}"));
    let mut rest = text;
    let mut layers = None;
    // An adding flag whose one part is a number has its scale there, not layers.
    if let Some((before, last)) = rest.rsplit_once(':')
        && let Some(found) = layer_list(last)
        && (!adds
            || before
                .rsplit_once(':')
                .is_some_and(|(_, scale)| scale.parse::<f64>().is_ok()))
    {
        layers = Some(found);
        rest = before;
    }
    let action = if adds {
        let (before, scale) = rest
            .rsplit_once(':')
            .ok_or_else(|| malformed("expected DIRECTION:SCALE"))?;
        let scale: f64 = scale.parse().map_err(|_| malformed("the scale is no number"))?;
        if !scale.is_finite() {
            return Err(malformed("the scale is not finite"));
        }
        rest = before;
        Action::Add(scale)
    } else {
        Action::Ablate
    };
    let (path, from_layer) = match rest.rsplit_once('@') {
        Some((path, layer)) => match layer.parse() {
            Ok(layer) => (path, Some(layer)),
            Err(_) => (rest, None),
        },
        None => (rest, None),
    };
    let layers = match layers {
        Some(ranges) => ranges.into_iter().flatten().collect(),
        None => (0..layer_count).collect::<Vec<_>>(),
    };
    if let Some(beyond) = layers.iter().find(|&&layer| layer >= layer_count) {
        return Err(malformed(&format!("layer {beyond}, the model has {layer_count}")));
    }
    let digest = process::sha256(&std::fs::read(path).at(path)?);
    Ok(Request {
        path: path.into(),
        digest,
        from_layer,
        layers,
        action,
    })
}

/// `3`, `4-12`, `3,5,7`.
fn layer_list(text: &str) -> Option<Vec<RangeInclusive<usize>>> {
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

/// The interventions of a run, as a probe.
#[derive(Default)]
pub struct Interventions {
    steps: Vec<(Point, Action, Tensor)>,
}

impl Interventions {
    pub fn load(requests: &[Request], config: &Config, device: &Device) -> Result<Interventions> {
        let mut steps = Vec::new();
        for request in requests {
            let subject = request.path.display();
            let file = acts::File::open(&request.path, acts::OpenOptions::default()).at(&subject)?;
            for &layer in &request.layers {
                let wanted = request.from_layer.unwrap_or(layer as u32);
                let values =
                    direction(&file, wanted, config.hidden_size).map_err(|cause| Error::input(&subject, cause))?;
                // (1, hidden)
                let tensor = Tensor::from_vec(values, (1, config.hidden_size), device)
                    .map_err(model::Error::from)
                    .at(&subject)?;
                let sites: &[Site] = match request.action {
                    Action::Ablate => &[Site::ResidPre, Site::ResidMid, Site::ResidPost],
                    Action::Add(_) => &[Site::ResidPost],
                };
                for site in sites.iter().filter(|site| site.exists(config)) {
                    steps.push((Point::new(*site, layer), request.action, tensor.clone()));
                }
            }
        }
        Ok(Interventions { steps })
    }
}

/// The unit direction of a layer: the tensor of that layer, or the only one of the file.
fn direction(file: &acts::File, layer: u32, hidden_size: usize) -> std::result::Result<Vec<f32>, String> {
    let fits = |spec: &acts::TensorSpec| spec.row_shape == [hidden_size as u64] && spec.name != "samples";
    let specs = &file.header().tensors;
    let suffix = format!(".{layer}");
    let of_layer: Vec<&str> = specs
        .iter()
        .filter(|spec| fits(spec) && spec.name.ends_with(&suffix))
        .map(|spec| spec.name.as_str())
        .collect();
    let named = of_layer.iter().find(|name| name.starts_with("direction")).copied();
    let name = match (named, of_layer.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, []) if specs.iter().any(|spec| fits(spec) && spec.name == "direction") => "direction",
        (None, []) => return Err(format!("no direction of width {hidden_size} for layer {layer}")),
        (None, several) => {
            return Err(format!(
                "several tensors could be the direction of layer {layer}: {}",
                several.join(", ")
            ));
        }
    };
    let tensor = file.tensor(name).map_err(|cause| cause.to_string())?;
    if file.row_count(tensor) != 1 {
        return Err(format!(
            "{name} has {} rows, a direction is one",
            file.row_count(tensor)
        ));
    }
    let values: Vec<f64> = file
        .to_vec(tensor, 0..1)
        .or_else(|_| {
            file.to_vec::<f32>(tensor, 0..1)
                .map(|row| row.into_iter().map(f64::from).collect())
        })
        .map_err(|cause| cause.to_string())?;
    let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    if !norm.is_finite() || norm == 0.0 {
        return Err(format!("{name} has norm {norm}: no direction"));
    }
    Ok(values.into_iter().map(|x| (x / norm) as f32).collect())
}

impl Probe for &Interventions {
    fn wants(&self, point: Point) -> bool {
        self.steps.iter().any(|(at, ..)| *at == point)
    }

    fn visit(&mut self, point: Point, value: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut x = value.clone(); // (rows, hidden)
        for (_, action, direction) in self.steps.iter().filter(|(at, ..)| *at == point) {
            let direction = direction.to_dtype(x.dtype())?;
            x = match action {
                // A sum along each row, so that no row depends on its neighbours.
                Action::Ablate => {
                    let along = x.broadcast_mul(&direction)?.sum_keepdim(1)?; // (rows, 1)
                    (&x - along.broadcast_mul(&direction)?)?
                }
                Action::Add(scale) => x.broadcast_add(&(direction * *scale)?)?,
            };
        }
        Ok(Some(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_right() {
        let file = std::env::temp_dir().join(format!("directions-{}", std::process::id()));
        std::fs::write(&file, b"x").unwrap();
        let name = file.display().to_string();
        let request = |text: &str, adds| parse(&format!("{name}{text}"), adds, 8).unwrap();
        assert_eq!(request("", false).layers, (0..8).collect::<Vec<_>>());
        assert_eq!(request("@3:2-4", false).layers, [2, 3, 4]);
        assert_eq!(request("@3:2-4", false).from_layer, Some(3));
        assert_eq!(request(":1,5", false).layers, [1, 5]);
        assert_eq!(request("@2:-1.5", true).action, Action::Add(-1.5));
        assert_eq!(request(":4", true).action, Action::Add(4.0));
        assert_eq!(request(":4:7", true).layers, [7]);
        assert!(parse(&format!("{name}:9"), false, 8).is_err());
        assert!(parse(&name, true, 8).is_err());
        std::fs::remove_file(&file).unwrap();
    }
}
