//! Checkpoints: a model directory, the optimiser's moments and the metrics so far, committed by one rename.
//!
//! ```text
//! .DIR.partial/                     the run, locked while it is trained; renamed to DIR at the end
//!   lock  plan.json                 the plan is compared on resume
//!   metrics.jsonl                   the rows of every step so far
//!   checkpoints/step-00000100/      model or adapter files, optimizer.safetensors, metrics.jsonl, state.json
//! ```
//! state.json holds the step and a digest of every other file. A checkpoint whose digests do not hold is passed over for the one
//! before it; what it recorded is computed again, with the same bits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::Device;
use model::DType;
use model::export::{self, Entry};
use model::optimiser::Moments;
use process::plan::MixedCompute;
use process::{Error, Existing, Result, ResultExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::trainer::Trainer;

/// How many checkpoints stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    All,
    Newest(usize),
}

/// The directory to make.
#[derive(Clone, Debug)]
pub struct Target {
    pub path: PathBuf,
    pub existing: Existing,
    pub keep: Keep,
    /// Whether another machine may continue the run.
    pub mixed: MixedCompute,
}

impl Target {
    /// Refuses to go on with what another plan began.
    pub fn check_plan(&self, at: &Path, was: Value, is: &Value) -> Result<()> {
        let is = self.mixed.comparable(is.clone());
        match process::plan::difference(&self.mixed.comparable(was), &is) {
            None => Ok(()),
            Some(difference) => {
                let cause = format!("belongs to another plan: {difference}");
                Err(Error::conflict(at.display(), cause).hint("--force starts over"))
            }
        }
    }
}

/// The directory of a run that is not finished.
pub struct Run {
    pub partial: PathBuf,
    pub target: Target,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: u64,
    optimiser_step: u64,
    digests: BTreeMap<String, String>,
}

/// What a run begins from.
pub struct Found {
    pub step: u64,
    pub metrics: Vec<u8>,
}

/// plan.json. The digest tells a damaged plan from another one.
#[derive(Serialize, Deserialize)]
struct SavedPlan {
    digest: String,
    plan: Value,
}

impl SavedPlan {
    fn new(plan: Value) -> Self {
        let digest = process::sha256(plan.to_string().as_bytes());
        Self { digest, plan }
    }

    fn read(path: &Path) -> Result<Value> {
        let text = fs::read(path).at(path.display())?;
        let saved: Self = serde_json::from_slice(&text).at(path.display())?;
        match Self::new(saved.plan) {
            sound if sound.digest == saved.digest => Ok(sound.plan),
            _ => Err(Error::input(path.display(), "is damaged: its digest is another").hint("--force starts over")),
        }
    }
}

impl Run {
    /// Claims `.DIR.partial`.
    pub fn open(target: &Target, plan: &Value) -> Result<Self> {
        let existing = target.existing;
        let partial = process::beside(&target.path, ".partial");
        let subject = target.path.display();
        if fs::symlink_metadata(&target.path).is_ok() && existing != Existing::Replace {
            return Err(Error::conflict(subject, "exists").hint("--force replaces it"));
        }
        let plan_path = partial.join("plan.json");
        let exists = fs::symlink_metadata(&partial).is_ok();
        if exists && !partial.symlink_metadata().at(partial.display())?.is_dir() {
            return Err(Error::conflict(partial.display(), "is in the way: not a directory"));
        }
        if exists && existing == Existing::Refuse {
            let cause = "a run that is not finished is there";
            return Err(Error::conflict(partial.display(), cause).hint("--resume continues it, --force starts over"));
        }
        if !exists {
            fs::create_dir(&partial).at(partial.display())?;
        }
        let lock = File::create(partial.join("lock")).at(partial.display())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::conflict(partial.display(), "another run is writing it"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error).at(partial.display()),
        }
        if existing == Existing::Resume && plan_path.exists() {
            target.check_plan(&partial, SavedPlan::read(&plan_path)?, plan)?;
        } else {
            for name in ["checkpoints", "metrics.jsonl", "plan.json"] {
                remove(&partial.join(name))?;
            }
        }
        fs::create_dir_all(partial.join("checkpoints")).at(partial.display())?;
        // written last and renamed: a run without its plan has nothing to resume
        const FRESH: &str = "plan.json.new";
        let saved = SavedPlan::new(plan.clone());
        export::json(&partial, FRESH, &json!(saved)).at(partial.display())?;
        fs::rename(partial.join(FRESH), &plan_path).at(plan_path.display())?;
        Ok(Self {
            partial,
            target: target.clone(),
            _lock: lock,
        })
    }

    pub fn metrics_path(&self) -> PathBuf {
        self.partial.join("metrics.jsonl")
    }

    fn checkpoints(&self) -> PathBuf {
        self.partial.join("checkpoints")
    }

    /// Saves everything that a resumed run needs. `files` writes the model's own.
    pub fn save(
        &self,
        step: u64,
        trainer: &Trainer,
        metrics: &[u8],
        files: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let name = format!("step-{step:08}");
        let making = self.checkpoints().join(format!(".{name}.partial"));
        remove(&making)?;
        fs::create_dir(&making).at(making.display())?;
        files(&making)?;
        save_state(&making, trainer)?;
        export::file(&making, "metrics.jsonl", metrics).at(making.display())?;
        let mut digests = BTreeMap::new();
        for entry in fs::read_dir(&making).at(making.display())? {
            let path = entry.at(making.display())?.path();
            digests.insert(
                path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                digest(&path)?,
            );
        }
        let state = State {
            step,
            optimiser_step: trainer.optimiser.step,
            digests,
        };
        let state = serde_json::to_value(&state).at(making.display())?;
        export::json(&making, "state.json", &state).at(making.display())?;
        sync_directory(&making)?;
        let done = self.checkpoints().join(&name);
        remove(&done)?;
        fs::rename(&making, &done).at(done.display())?;
        sync_directory(&self.checkpoints())?;
        if let Keep::Newest(count) = self.target.keep {
            let steps = self.steps()?;
            for (_, path) in steps.iter().rev().skip(count) {
                remove(path)?;
            }
        }
        Ok(())
    }

    /// The finished checkpoints, ascending.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut steps = Vec::new();
        let directory = self.checkpoints();
        for entry in fs::read_dir(&directory).at(directory.display())? {
            let path = entry.at(directory.display())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
                steps.push((step, path));
            }
        }
        steps.sort();
        Ok(steps)
    }

    /// Loads the newest checkpoint that is whole into the trainer; `doubt` hears of those that are not.
    pub fn restore(&self, trainer: &mut Trainer, mut doubt: impl FnMut(&Path, &str)) -> Result<Option<Found>> {
        for (_, path) in self.steps()?.iter().rev() {
            match verified(path) {
                Err(cause) => doubt(path, &cause),
                Ok(state) => {
                    load_state(&path.join("optimizer.safetensors"), trainer)?;
                    trainer.optimiser.step = state.optimiser_step;
                    let metrics = fs::read(path.join("metrics.jsonl")).at(path.display())?;
                    return Ok(Some(Found {
                        step: state.step,
                        metrics,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Gives the finished directory its name.
    pub fn publish(self) -> Result<()> {
        for name in ["lock", "plan.json"] {
            remove(&self.partial.join(name))?;
        }
        sync_directory(&self.partial)?;
        let target = &self.target.path;
        remove(target)?;
        fs::rename(&self.partial, target).at(target.display())?;
        match target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync_directory(parent),
            None => sync_directory(Path::new(".")),
        }
    }
}

/// Checks every digest of a checkpoint.
fn verified(path: &Path) -> std::result::Result<State, String> {
    let text = fs::read(path.join("state.json")).map_err(|error| format!("state.json: {error}"))?;
    let state: State = serde_json::from_slice(&text).map_err(|error| format!("state.json: {error}"))?;
    for needed in ["optimizer.safetensors", "metrics.jsonl"] {
        if !state.digests.contains_key(needed) {
            return Err(format!("state.json names no {needed}"));
        }
    }
    for (name, expected) in &state.digests {
        // names come from a file: one component, nothing else
        if Path::new(name).components().count() != 1 || name.starts_with('.') {
            return Err(format!("state.json names {name:?}"));
        }
        match digest(&path.join(name)) {
            Ok(found) if found == *expected => {}
            Ok(_) => return Err(format!("{name} is damaged")),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(state)
}

fn digest(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(File::open(path).at(path.display())?)
        .at(path.display())?;
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// Weights as they are trained (f32), their moments, and the state of the auxiliary losses.
fn save_state(directory: &Path, trainer: &Trainer) -> Result<()> {
    let own = trainer.auxiliaries.state().at("auxiliary losses")?;
    let trainable = &trainer.learner.trainable;
    let part = |at: usize, part: &str| Entry {
        name: format!("{}.{part}", trainable[at].name),
        shape: trainable[at].tensor.dims().to_vec(),
        dtype: DType::F32,
    };
    let parts = (0..trainable.len()).flat_map(|at| PARTS.map(|name| part(at, name)));
    let kept = own.iter().map(|(name, tensor)| Entry {
        name: format!("aux.{name}"),
        shape: tensor.dims().to_vec(),
        dtype: DType::F64,
    });
    let entries: Vec<Entry> = parts.chain(kept).collect();
    let data = |index: usize| {
        let (at, part) = (index / PARTS.len(), index % PARTS.len());
        let Some(moments) = trainer.optimiser.moments.get(at) else {
            return export::bytes(&own[index - trainable.len() * PARTS.len()].1, DType::F64);
        };
        let tensor = match (moments, part) {
            (
                Moments::Host {
                    master: Some(master), ..
                },
                0,
            ) => return Ok(little_endian(master)),
            (Moments::Host { first, .. }, 1) => return Ok(little_endian(first)),
            (Moments::Host { second, .. }, 2) => return Ok(little_endian(second)),
            (Moments::Device { master, .. }, 0) => master,
            (Moments::Device { first, .. }, 1) => first,
            (Moments::Device { second, .. }, 2) => second,
            _ => &trainable[at].tensor,
        };
        export::bytes(&tensor.to_device(&Device::Cpu)?, DType::F32)
    };
    export::safetensors(directory, "optimizer.safetensors", &entries, data).at(directory.display())
}

const PARTS: [&str; 3] = ["weight", "first_moment", "second_moment"];

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn load_state(path: &Path, trainer: &mut Trainer) -> Result<()> {
    let mut tensors = candle_core::safetensors::load(path, &Device::Cpu).at(path.display())?;
    for (trainable, moments) in trainer.learner.trainable.iter().zip(&mut trainer.optimiser.moments) {
        let mut part = |part: &str| {
            let name = format!("{}.{part}", trainable.name);
            match tensors.remove(&name) {
                Some(tensor) if tensor.dims() == trainable.tensor.dims() && tensor.dtype() == DType::F32 => Ok(tensor),
                _ => Err(Error::input(
                    path.display(),
                    format!("{name} is missing or has another shape"),
                )),
            }
        };
        let parts = [part(PARTS[0])?, part(PARTS[1])?, part(PARTS[2])?];
        moments.restore(&trainable.tensor, &parts).at(&trainable.name)?;
    }
    for (name, tensor) in tensors {
        match name.strip_prefix("aux.") {
            Some(own) => trainer.auxiliaries.restore(own, &tensor).at(path.display())?,
            None => {
                return Err(Error::input(
                    path.display(),
                    format!("holds {name}, which this run has not"),
                ));
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at(path.display()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).at(path.display()),
        Ok(_) => fs::remove_file(path).at(path.display()),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .at(path.display())
}
