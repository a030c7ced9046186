//! A direction taken out of weights: which tensors change and how, and the directory that they are written to. What does not change is copied
//! as it is.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::half::{bf16, f16};
use model::{Checkpoint, Config, Site, StreamWriter};
use process::{Error, Result, ResultExt};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use steering::{Op, Operation, Plan, Positions};

const INDEX: &str = "model.safetensors.index.json";

/// An orthonormal basis of what leaves the residual stream.
pub struct Directions(Vec<Vec<f64>>);

impl Directions {
    /// Of a plan that takes the same span out of all that is written to the stream; any other cannot stand in weights.
    pub fn of(plan: &Plan, config: &Config) -> std::result::Result<Directions, String> {
        let first = plan.operations.first().ok_or("has no operation")?;
        for operation in &plan.operations {
            let is_whole = operation.op == Op::Ablate
                && operation.coefficient == 1.0
                && operation.gate.is_none()
                && operation.positions == Positions::ALL
                && operation.vectors == first.vectors;
            if !is_whole {
                return Err(
                    "does more than take one span out at every token, and only that can stand in weights".into(),
                );
            }
        }
        match covers(&plan.operations, config) {
            true => Ok(Directions(first.basis()?)),
            false => Err("takes the span out of a part of the residual stream only".into()),
        }
    }

    /// Takes them out of numbers that lie in rows of `width` along the stream, or across it.
    fn leave(&self, numbers: &mut [f64], shape: &[usize], axis: usize) {
        let width = self.0[0].len();
        let columns = if axis == 0 { numbers.len() / shape[0] } else { 1 };
        // (row of the stream, then what lies side by side)
        for block in numbers.chunks_exact_mut(width * columns) {
            for direction in &self.0 {
                for column in 0..columns {
                    let along: f64 = direction
                        .iter()
                        .enumerate()
                        .map(|(at, d)| d * block[at * columns + column])
                        .sum();
                    for (at, d) in direction.iter().enumerate() {
                        block[at * columns + column] -= along * d;
                    }
                }
            }
        }
    }
}

/// Whether nothing with the span can enter the stream, or everything that is read from it is without: the input of the first block and
/// all that is added, or the stream at all its places.
fn covers(operations: &[Operation], config: &Config) -> bool {
    let has = |site: Site, layer: usize| {
        operations
            .iter()
            .any(|it| it.site == site && it.layers.contains(&layer))
    };
    let all = |site: Site| (0..config.layer_count()).all(|layer| has(site, layer));
    let enters_not = has(Site::ResidPre, 0) && all(Site::AttnOut) && all(Site::MlpOut);
    let stream = [Site::ResidPre, Site::ResidMid, Site::ResidPost];
    enters_not || stream.into_iter().all(|site| !site.exists(config) || all(site))
}

/// A model directory being written; it appears under its name when it is whole.
pub struct Directory {
    path: PathBuf,
    partial: PathBuf,
}

impl Directory {
    pub fn create(path: &Path) -> Result<Directory> {
        let shown = path.display();
        if path.symlink_metadata().is_ok() {
            return Err(Error::conflict(&shown, "exists"));
        }
        let name = path
            .file_name()
            .ok_or_else(|| Error::usage("--output", format!("{shown} names no directory")))?;
        let partial = path.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        if partial.exists() {
            fs::remove_dir_all(&partial).at(partial.display())?;
        }
        fs::create_dir(&partial).at(partial.display())?;
        Ok(Directory {
            path: path.to_owned(),
            partial,
        })
    }

    /// Everything beside the weights: config.json with the output head untied, the tokenizer's files.
    pub fn copy(&self, checkpoint: &Checkpoint) -> Result<()> {
        let source = checkpoint.directory().path();
        for entry in fs::read_dir(source).at(source.display())? {
            let entry = entry.at(source.display())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_weights = [".safetensors", ".bin", ".pt", ".pth", ".gguf"]
                .iter()
                .any(|end| name.ends_with(end));
            if is_weights || [INDEX, "config.json"].contains(&name.as_str()) || !entry.path().is_file() {
                continue;
            }
            self.write(&name, &checkpoint.directory().read(&name).at(source.display())?)?;
        }
        let mut config: Value = serde_json::from_slice(checkpoint.config_text()).at("config.json")?;
        config["tie_word_embeddings"] = false.into();
        self.write_json("config.json", &config)
    }

    /// Every weight file, with the directions taken out.
    pub fn weights(&self, checkpoint: &Checkpoint, writers: &[StreamWriter], directions: &Directions) -> Result<()> {
        let mut left: HashMap<&str, usize> = writers
            .iter()
            .map(|writer| (writer.name.as_str(), writer.axis))
            .collect();
        let [embedding, head] = checkpoint.config().table_names();
        let source = checkpoint.directory();
        let index = source.read_optional(INDEX).at(INDEX)?;
        let mut index: Option<Value> = index.map(|text| serde_json::from_slice(&text).at(INDEX)).transpose()?;
        for file in source.weight_files().at(source.path().display())? {
            let bytes = source.open_file(&file).at(&file)?;
            let bytes = read(bytes).at(&file)?;
            let tensors = SafeTensors::deserialize(&bytes).at(&file)?;
            let mut written: Vec<Owned> = Vec::new();
            for (name, view) in tensors.tensors() {
                let known = full_name(&name, &left, &embedding);
                let is_embedding = known.as_deref() == Some(&*embedding);
                let must_untie = is_embedding && checkpoint.config().tied && tensors.tensor(&head).is_err();
                if must_untie {
                    written.push(Owned::copy(&head, &view));
                    if let Some(index) = &mut index {
                        index["weight_map"][&head] = file.as_str().into();
                    }
                }
                written.push(match known.and_then(|known| left.remove(known.as_str())) {
                    Some(axis) => Owned::changed(&name, &view, axis, directions)?,
                    None => Owned::copy(&name, &view),
                });
            }
            self.safetensors(&file, &written)?;
        }
        if let Some(name) = left.keys().next() {
            return Err(Error::input(name, "is in no weight file under its own name"));
        }
        match index {
            Some(index) => self.write_json(INDEX, &index),
            None => Ok(()),
        }
    }

    pub fn commit(self) -> Result<()> {
        fs::File::open(&self.partial)
            .and_then(|directory| directory.sync_all())
            .at(self.partial.display())?;
        fs::rename(&self.partial, &self.path).at(self.path.display())?;
        process::written(&self.path);
        Ok(())
    }

    fn safetensors(&self, name: &str, tensors: &[Owned]) -> Result<()> {
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).at(&tensor.name)?;
            Ok((tensor.name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        self.write(name, &safetensors::serialize(views, Some(metadata)).at(name)?)
    }

    fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value).at(name)?;
        text.push(b'\n');
        self.write(name, &text)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        let mut file = fs::File::create(&path).at(path.display())?;
        std::io::Write::write_all(&mut file, bytes).at(path.display())?;
        file.sync_all().at(path.display())
    }
}

fn read(mut file: fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

/// The whole name of a tensor that changes: a base model's file leaves the first part out.
fn full_name(stored: &str, left: &HashMap<&str, usize>, embedding: &str) -> Option<String> {
    let is_it = |name: &&str| *name == stored || name.split_once('.').is_some_and(|(_, rest)| rest == stored);
    left.keys().copied().chain([embedding]).find(is_it).map(str::to_owned)
}

/// A tensor to be written.
struct Owned {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Owned {
    fn copy(name: &str, view: &TensorView) -> Owned {
        Owned {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        }
    }

    /// Computed in f64, stored in the type that it had.
    fn changed(name: &str, view: &TensorView, axis: usize, directions: &Directions) -> Result<Owned> {
        let mut owned = Owned::copy(name, view);
        let mut numbers = numbers(&owned).map_err(|cause| Error::input(name, cause))?;
        if owned.shape.get(axis) != Some(&directions.0[0].len()) {
            return Err(Error::input(name, format!("has the shape {:?}", owned.shape)));
        }
        directions.leave(&mut numbers, &owned.shape, axis);
        owned.bytes = match owned.dtype {
            Dtype::F32 => numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            Dtype::BF16 => numbers.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect(),
        };
        Ok(owned)
    }
}

fn numbers(tensor: &Owned) -> std::result::Result<Vec<f64>, String> {
    let pairs = || tensor.bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    Ok(match tensor.dtype {
        Dtype::F32 => {
            let fours = tensor
                .bytes
                .chunks_exact(4)
                .map(|four| [four[0], four[1], four[2], four[3]]);
            fours.map(|four| f64::from(f32::from_le_bytes(four))).collect()
        }
        Dtype::BF16 => pairs().map(|pair| bf16::from_le_bytes(pair).to_f64()).collect(),
        Dtype::F16 => pairs().map(|pair| f16::from_le_bytes(pair).to_f64()).collect(),
        other => return Err(format!("is of type {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_leaves_rows_and_columns() {
        let directions = Directions(vec![vec![0.6, 0.8]]);
        let matrix = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut rows = matrix.clone();
        directions.leave(&mut rows, &[3, 2], 1);
        assert!(rows.chunks(2).all(|row| (0.6 * row[0] + 0.8 * row[1]).abs() < 1e-12));
        let mut columns = matrix;
        directions.leave(&mut columns, &[2, 3], 0);
        assert!((0..3).all(|at| (0.6 * columns[at] + 0.8 * columns[3 + at]).abs() < 1e-12));
        assert!(rows.iter().chain(&columns).any(|x| x.abs() > 0.1));
        let mut bias = vec![0.6, 0.8];
        directions.leave(&mut bias, &[2], 0);
        assert!(bias.iter().all(|x| x.abs() < 1e-12));
    }
}
