//! A plan as a container: operations in JSON beside their vectors, and for which model they were made.

use std::path::Path;

use acts::{Codec, Dtype, File, Header, OpenOptions, Role, TensorSpec};
use model::{Checkpoint, Point, Steering};
use process::{Error, Output, Result, ResultExt};
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// BOUND: the JSON of a plan.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// What a plan does, and for which model.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub made: Made,
    pub operations: Vec<Operation>,
}

/// The model that a plan was made for, as far as its maker knew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    pub model_digest: Option<String>,
    pub family: Option<String>,
    pub layer_count: usize,
    /// Of the residual stream.
    pub width: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    operations: Vec<Operation>,
}

impl Made {
    pub fn of(checkpoint: &Checkpoint) -> Made {
        let config = checkpoint.config();
        Made {
            model_digest: Some(checkpoint.digest().to_owned()),
            family: Some(config.family.to_owned()),
            layer_count: config.layer_count(),
            width: config.hidden_size,
        }
    }

    fn read(header: &Header) -> std::result::Result<Made, String> {
        let number = |key: &str| {
            let value = header.meta.get(key).and_then(serde_json::Value::as_u64);
            let number = value.and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| format!("meta.{key} of the header is no number"))
        };
        let family = header.meta.get("family").and_then(serde_json::Value::as_str);
        Ok(Made {
            model_digest: header.model_digest.clone(),
            family: family.map(str::to_owned),
            layer_count: number("layer_count")?,
            width: number("width")?,
        })
    }

    /// Why the plan cannot steer this model.
    fn difference(&self, of: &Made, allow_other_model: bool) -> Option<String> {
        let differs = |what: &str, ours: &dyn std::fmt::Display, theirs: &dyn std::fmt::Display| {
            Some(format!("was made for {what} {ours}, the model has {theirs}"))
        };
        if self.width != of.width {
            return differs("the width", &self.width, &of.width);
        }
        if self.layer_count != of.layer_count {
            return differs("a layer count of", &self.layer_count, &of.layer_count);
        }
        match (&self.family, &of.family) {
            (Some(ours), Some(theirs)) if ours != theirs => return differs("the family", ours, theirs),
            _ => {}
        }
        match (&self.model_digest, &of.model_digest) {
            (Some(ours), Some(theirs)) if ours != theirs && !allow_other_model => {
                let cause = format!("was made for the model {ours}, this is {theirs}");
                Some(cause + "; --allow-other-model takes it all the same")
            }
            _ => None,
        }
    }
}

impl Plan {
    /// Reads a plan, and refuses one that makes no sense in any model.
    pub fn read(path: &Path) -> Result<Plan> {
        let subject = path.display();
        let file = File::open(path, OpenOptions::default()).at(&subject)?;
        let refuse = |cause: String| Error::input(&subject, cause);
        if file.header().tensor_index("steer").is_none() {
            return Err(refuse("is no steering plan: it has no tensor `steer`".into())
                .hint("--ablate and --add take the directions of flowlens-pca"));
        }
        let mut operations = operations(&file, &subject.to_string())?;
        for (index, operation) in operations.iter_mut().enumerate() {
            operation.vectors = rows(&file, &format!("steer.{index}.vector")).at(&subject)?;
            if let Some(gate) = &mut operation.gate {
                let mut rows = rows(&file, &format!("steer.{index}.gate")).at(&subject)?;
                if rows.len() != 1 {
                    return Err(refuse(format!("operation {index}: a gate of {} vectors", rows.len())));
                }
                gate.direction = rows.remove(0);
            }
            operation
                .check()
                .map_err(|cause| refuse(format!("operation {index}: {cause}")))?;
        }
        Ok(Plan {
            made: Made::read(file.header()).map_err(refuse)?,
            operations,
        })
    }

    /// Writes it under the producer's header, which says where it came from.
    pub fn write(&self, output: Output, mut header: Header) -> Result<Output> {
        let name = output.name().to_owned();
        let text = Text {
            operations: self.operations.clone(),
        };
        let text = serde_json::to_vec(&text).map_err(|cause| Error::bug("plan", cause))?;
        header.model_digest.clone_from(&self.made.model_digest);
        for (key, number) in [("layer_count", self.made.layer_count), ("width", self.made.width)] {
            header.meta.insert(key.into(), number.into());
        }
        if let Some(family) = &self.made.family {
            header.meta.insert("family".into(), family.as_str().into());
        }
        let steer = TensorSpec::new("steer", Dtype::U8, &[]).codec(Codec::Zstd);
        header.tensors.push(steer.role(Role::Steering).rows(text.len() as u64));
        let tensors = self.tensors();
        for (name, rows) in &tensors {
            let width = rows.first().map_or(1, Vec::len) as u64;
            let spec = TensorSpec::new(name, Dtype::F64, &[width]).role(Role::Steering);
            header.tensors.push(spec.rows(rows.len() as u64));
        }
        header.fix_blocks().at(&name)?;
        let mut writer = acts::Writer::new(output, header, 1).at(&name)?;
        writer.push(0, &text).at(&name)?;
        for (index, (_, rows)) in tensors.iter().enumerate() {
            writer.push_exact::<f64>(index + 1, &rows.concat()).at(&name)?;
        }
        Ok(writer.finish().at(&name)?.0)
    }

    fn tensors(&self) -> Vec<(String, Vec<Vec<f64>>)> {
        let mut tensors = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            if !operation.vectors.is_empty() {
                tensors.push((format!("steer.{index}.vector"), operation.vectors.clone()));
            }
            if let Some(gate) = &operation.gate {
                tensors.push((format!("steer.{index}.gate"), vec![gate.direction.clone()]));
            }
        }
        tensors
    }

    /// Refuses a model for which it was not made, or which has no such places.
    pub fn check_model(&self, checkpoint: &Checkpoint, allow_other_model: bool) -> std::result::Result<(), String> {
        if let Some(difference) = self.made.difference(&Made::of(checkpoint), allow_other_model) {
            return Err(difference);
        }
        self.operations.iter().enumerate().try_for_each(|(index, operation)| {
            let checked = operation.check_place(checkpoint.config());
            checked.map_err(|cause| format!("operation {index}: {cause}"))
        })
    }

    /// Adds the plan's steps to those of a run, all coefficients times `scale`, at those of its layers that are among `layers`.
    pub fn steer(
        &self,
        steering: &mut Steering,
        checkpoint: &Checkpoint,
        how: How<'_>,
    ) -> std::result::Result<(), String> {
        self.check_model(checkpoint, how.allow_other_model)?;
        let mut is_used = false;
        for (index, operation) in self.operations.iter().enumerate() {
            let of = |cause: String| format!("operation {index}: {cause}");
            let step = operation.step(how.scale).map_err(of)?;
            for &layer in operation.layers.iter().filter(|layer| how.layers.contains(layer)) {
                let point = Point::new(operation.site, layer);
                steering
                    .push(point, step.clone())
                    .map_err(|error| of(error.to_string()))?;
                is_used = true;
            }
        }
        match is_used || self.operations.is_empty() {
            true => Ok(()),
            false => Err("has no operation in these layers".into()),
        }
    }
}

/// How a plan is put to use.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    pub scale: f64,
    pub layers: &'a [usize],
    /// Another model of the same family, width and depth.
    pub allow_other_model: bool,
}

fn operations(file: &File, subject: &str) -> Result<Vec<Operation>> {
    let tensor = file.tensor("steer").at(subject)?;
    let length = file.row_count(tensor);
    if length > JSON_BYTES_MAX {
        let cause = format!("the JSON of the plan has {length} bytes, limit {JSON_BYTES_MAX}");
        return Err(Error::input(subject, cause));
    }
    let bytes = file.to_bytes(tensor, 0..length).at(subject)?;
    let object = json::document(&bytes).map_err(|cause| Error::input(subject, format!("steer: {cause}")))?;
    let text: Text =
        serde_json::from_value(object.into()).map_err(|cause| Error::input(subject, format!("steer: {cause}")))?;
    Ok(text.operations)
}

/// The vectors of a tensor; none where there is no such tensor.
fn rows(file: &File, name: &str) -> acts::Result<Vec<Vec<f64>>> {
    if file.header().tensor_index(name).is_none() {
        return Ok(Vec::new());
    }
    let tensor = file.tensor(name)?;
    let width = file.spec(tensor)?.row_elements()?;
    let numbers: Vec<f64> = file.to_vec(tensor, 0..file.row_count(tensor))?;
    let width = usize::try_from(width).unwrap_or(usize::MAX).max(1);
    Ok(numbers.chunks_exact(width).map(<[f64]>::to_vec).collect())
}
