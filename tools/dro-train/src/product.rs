//! The files: the soft prompt, and beside it, while it is learned, the state after the last step.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use model::export::{self, Entry};
use model::{DType, Device, Tensor, soft_prompt};
use process::{Error, Existing, MixedCompute, Output, Result, ResultExt};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::report::StepRow;
use crate::settings::LearnPlan;

const STATE: [&str; 3] = [soft_prompt::TENSOR, "first_moment", "second_moment"];

/// How far a run had come.
pub struct State {
    pub steps: Vec<StepRow>,
    pub tensors: [Tensor; 3],
}

/// Where the soft prompt goes.
pub struct Target {
    pub path: PathBuf,
    pub existing: Existing,
    pub inputs: Vec<PathBuf>,
    pub mixed: MixedCompute,
}

impl Target {
    fn state_path(&self) -> PathBuf {
        process::beside(&self.path, ".state")
    }

    /// Whether the soft prompt of this very plan is there already. One of another plan, and an unfinished run that is not to be continued,
    /// are in the way.
    pub fn is_finished(&self, plan: &LearnPlan) -> Result<bool> {
        if self.existing == Existing::Resume && self.path.is_file() {
            let metadata = metadata(&std::fs::read(&self.path).at(self.path.display())?).at_file(&self.path)?;
            self.check_plan(&self.path, &metadata, plan)?;
            return Ok(true);
        }
        process::check_target(&self.path, self.existing, &self.inputs)?;
        let state = self.state_path();
        if self.existing == Existing::Refuse && state.exists() {
            let cause = "a run that is not finished is there";
            return Err(Error::conflict(state.display(), cause).hint("--resume continues it, --force starts over"));
        }
        Ok(false)
    }

    fn check_plan(&self, path: &Path, metadata: &HashMap<String, String>, plan: &LearnPlan) -> Result<()> {
        let saved = metadata
            .get("plan")
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let saved = saved.ok_or_else(|| Error::conflict(path.display(), "is no soft prompt of this tool"))?;
        let own = serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?;
        let (saved, own) = (self.mixed.comparable(saved), self.mixed.comparable(own));
        match process::plan::difference(&saved, &own) {
            Some(difference) => Err(Error::conflict(
                path.display(),
                format!("belongs to another plan: {difference}"),
            )),
            None => Ok(()),
        }
    }

    /// The state that a run of this plan left behind.
    pub fn state(&self, plan: &LearnPlan) -> Result<Option<State>> {
        let path = self.state_path();
        if self.existing != Existing::Resume || !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).at(path.display())?;
        let metadata = metadata(&bytes).at_file(&path)?;
        self.check_plan(&path, &metadata, plan)?;
        let steps = metadata.get("steps").map(|text| serde_json::from_str(text));
        let steps = steps.transpose().at_file(&path)?.unwrap_or_default();
        let file = SafeTensors::deserialize(&bytes).at_file(&path)?;
        let tensor = |name| tensor(&file, name).at_file(&path);
        let tensors = [tensor(STATE[0])?, tensor(STATE[1])?, tensor(STATE[2])?];
        Ok(Some(State { steps, tensors }))
    }

    /// Keeps the state after a step.
    pub fn keep(&self, plan: &LearnPlan, state: &State) -> Result<()> {
        let steps = serde_json::to_string(&state.steps).map_err(|cause| Error::bug("steps", cause))?;
        let named = STATE.into_iter().zip(&state.tensors).collect::<Vec<_>>();
        let bytes = bytes(&named, plan, [("steps", steps)])?;
        let mut output = Output::create(&self.state_path(), Existing::Replace, &[])?;
        output.write_all(&bytes).at(output.name().to_owned())?;
        output.commit()
    }

    /// Writes the soft prompt; the state is then of no more use.
    pub fn deliver(&self, plan: &LearnPlan, rows: &Tensor) -> Result<()> {
        let existing = match self.existing {
            Existing::Resume => Existing::Refuse,
            other => other,
        };
        let bytes = bytes(&[(soft_prompt::TENSOR, rows)], plan, [])?;
        let mut output = Output::create_binary(&self.path, existing, &self.inputs)?;
        output.write_all(&bytes).at(self.path.display())?;
        output.commit()?;
        match std::fs::remove_file(self.state_path()) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause).at(self.state_path().display()),
            _ => Ok(()),
        }
    }
}

/// A safetensors file of f32 tensors, with what readers must know.
fn bytes<const N: usize>(tensors: &[(&str, &Tensor)], plan: &LearnPlan, more: [(&str, String); N]) -> Result<Vec<u8>> {
    let plan_text = serde_json::to_string(plan).map_err(|cause| Error::bug("plan", cause))?;
    let said = [
        ("format", "pt".to_owned()),
        ("text", plan.system.clone()),
        ("model_digest", plan.model_digest.clone()),
        ("tokenizer_digest", plan.tokenizer_digest.clone()),
        ("plan_digest", process::plan::digest(plan)?),
        ("plan", plan_text),
    ];
    let metadata = said
        .into_iter()
        .chain(more)
        .map(|(key, value)| (key.to_owned(), value.into()));
    let entries: Vec<Entry> = tensors
        .iter()
        .map(|(name, tensor)| Entry {
            name: (*name).to_owned(),
            dtype: DType::F32,
            shape: tensor.dims().to_vec(),
        })
        .collect();
    let header = export::header(&entries, metadata.collect()).at("soft prompt")?;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    for (_, tensor) in tensors {
        let on_host = tensor.to_device(&Device::Cpu).at("soft prompt")?;
        bytes.extend(export::bytes(&on_host, DType::F32).at("soft prompt")?);
    }
    Ok(bytes)
}

fn metadata(bytes: &[u8]) -> std::result::Result<HashMap<String, String>, safetensors::SafeTensorError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    Ok(header.metadata().clone().unwrap_or_default())
}

fn tensor(file: &SafeTensors, name: &str) -> std::result::Result<Tensor, String> {
    let view = file.tensor(name).map_err(|cause| cause.to_string())?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("{name} is not of f32"));
    }
    let numbers = view
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes));
    Tensor::from_iter(numbers, &Device::Cpu)
        .and_then(|flat| flat.reshape(view.shape()))
        .map_err(|cause| cause.to_string())
}

/// A file that is not what it should be is refused as input.
trait AtFile<T> {
    fn at_file(self, path: &Path) -> Result<T>;
}

impl<T, E: std::fmt::Display> AtFile<T> for std::result::Result<T, E> {
    fn at_file(self, path: &Path) -> Result<T> {
        self.map_err(|cause| Error::input(path.display(), cause))
    }
}
