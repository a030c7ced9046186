//! Checkpoints: a model directory, the optimiser's moments and the metrics so far, committed by one rename.
//!
//! ```text
//! .DIR.partial/                     the run, locked while it is trained; renamed to DIR at the end
//!   lock  plan.json                 the plan is compared on resume
//!   metrics.jsonl                   the rows of every step so far
//!   checkpoints/step-00000100/      model or adapter files, optimizer.safetensors, metrics.jsonl, state.json
//! ```
//! The first rank alone writes and reads it; the file does not tell how many ranks there were, and any number goes on from it.
//! state.json holds the step and a digest of every other file. A checkpoint whose digests do not hold is passed over for the one
//! before it; what it recorded is computed again, with the same bits.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::Device;
use model::export::{self, Entry};
use model::optimiser::Part;
use model::{DType, Tensor};
use process::plan::MixedCompute;
use process::{Error, Existing, Result, ResultExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::learner::Trainable;
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
    pub optimiser_step: u64,
    pub metrics: Vec<u8>,
    /// Of optimizer.safetensors.
    pub tensors: HashMap<String, Tensor>,
    pub path: PathBuf,
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

    /// Reads the newest checkpoint that is whole; `doubt` hears of those that are not.
    pub fn newest(&self, mut doubt: impl FnMut(&Path, &str)) -> Result<Option<Found>> {
        for (_, path) in self.steps()?.iter().rev() {
            match verified(path) {
                Err(cause) => doubt(path, &cause),
                Ok(state) => {
                    let optimiser = path.join("optimizer.safetensors");
                    return Ok(Some(Found {
                        step: state.step,
                        optimiser_step: state.optimiser_step,
                        metrics: fs::read(path.join("metrics.jsonl")).at(path.display())?,
                        tensors: candle_core::safetensors::load(&optimiser, &Device::Cpu).at(optimiser.display())?,
                        path: optimiser,
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
        process::written(target);
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
    let entry = |(at, part): &(usize, Part)| Entry {
        name: name(trainable, *at, *part),
        shape: trainable[*at].tensor.dims().to_vec(),
        dtype: DType::F32,
    };
    let parts = parts(trainer);
    let kept = own.iter().map(|(name, tensor)| Entry {
        name: format!("aux.{name}"),
        shape: tensor.dims().to_vec(),
        dtype: DType::F64,
    });
    let entries: Vec<Entry> = parts.iter().map(entry).chain(kept).collect();
    let data = |index: usize| match parts.get(index) {
        Some(&(at, part)) => Ok(collected(trainer, at, part)?.unwrap_or_default()),
        None => export::bytes(&own[index - parts.len()].1, DType::F64),
    };
    export::safetensors(directory, "optimizer.safetensors", &entries, data).at(directory.display())
}

/// What the other ranks do while the first one saves: each sends what it owns.
pub fn help_to_save(trainer: &Trainer) -> Result<()> {
    for (at, part) in parts(trainer) {
        collected(trainer, at, part).at("checkpoint")?;
    }
    Ok(())
}

/// Every part of every tensor that learns, in the order of the file.
fn parts(trainer: &Trainer) -> Vec<(usize, Part)> {
    let tensors = 0..trainer.learner.trainable.len();
    tensors.flat_map(|at| Part::ALL.map(|part| (at, part))).collect()
}

fn name(trainable: &[Trainable], at: usize, part: Part) -> String {
    let part = match part {
        Part::Weight => "weight",
        Part::FirstMoment => "first_moment",
        Part::SecondMoment => "second_moment",
    };
    format!("{}.{part}", trainable[at].name)
}

/// A part of a tensor, put together at the first rank of what every rank owns.
fn collected(trainer: &Trainer, at: usize, part: Part) -> model::Result<Option<Vec<u8>>> {
    let moments = &trainer.optimiser.moments[at];
    let values = moments.part(&trainer.learner.trainable[at].tensor, part)?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(trainer.share.world.collect_row(moments.range().start, &bytes)?)
}

/// Goes on from what the first rank has read, which all others learn from it. Returns the step that was done.
pub fn restore(trainer: &mut Trainer, found: Option<&mut Found>) -> Result<u64> {
    let steps = found.as_ref().map(|found| (found.step, found.optimiser_step));
    let Some((step, optimiser_step)) = share_json(trainer, &steps)? else {
        return Ok(0);
    };
    trainer.optimiser.step = optimiser_step;
    let mut none = HashMap::new();
    let (tensors, path) = match found {
        Some(found) => (&mut found.tensors, found.path.as_path()),
        None => (&mut none, Path::new("checkpoint")),
    };
    for at in 0..trainer.learner.trainable.len() {
        let parts = [
            shared(trainer, tensors, path, at, Part::Weight)?,
            shared(trainer, tensors, path, at, Part::FirstMoment)?,
            shared(trainer, tensors, path, at, Part::SecondMoment)?,
        ];
        let Trainable { name, tensor } = &trainer.learner.trainable[at];
        trainer.optimiser.moments[at].restore(tensor, &parts).at(name)?;
    }
    restore_auxiliaries(trainer, tensors, path)?;
    Ok(step)
}

/// A part of a tensor at every rank, from what the first one has read.
fn shared(
    trainer: &Trainer,
    tensors: &mut HashMap<String, Tensor>,
    path: &Path,
    at: usize,
    part: Part,
) -> Result<Tensor> {
    let (world, trainable) = (&trainer.share.world, &trainer.learner.trainable);
    let (name, shape) = (name(trainable, at, part), trainable[at].tensor.shape());
    let own = match tensors.remove(&name) {
        Some(tensor) if tensor.shape() == shape && tensor.dtype() == DType::F32 => {
            export::bytes(&tensor, DType::F32).at(path.display())?
        }
        None if !world.is_first() => Vec::new(),
        _ => {
            return Err(Error::input(
                path.display(),
                format!("{name} is missing or has another shape"),
            ));
        }
    };
    let bytes = world.share(own).at("ranks")?;
    Tensor::from_raw_buffer(&bytes, DType::F32, shape.dims(), &Device::Cpu).at(path.display())
}

/// What is left: the state of the auxiliary losses.
fn restore_auxiliaries(trainer: &mut Trainer, tensors: &mut HashMap<String, Tensor>, path: &Path) -> Result<()> {
    let text = safetensors::serialize(tensors.iter(), None).at(path.display())?;
    let text = trainer.share.world.share(text).at("ranks")?;
    let tensors = candle_core::safetensors::load_buffer(&text, &Device::Cpu).at(path.display())?;
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

fn share_json<T: Serialize + DeserializeOwned>(trainer: &Trainer, value: &T) -> Result<T> {
    let text = serde_json::to_vec(value).at("checkpoint")?;
    let text = trainer.share.world.share(text).at("ranks")?;
    serde_json::from_slice(&text).at("checkpoint")
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
