//! The tape: what a forward pass did, so that gradients can be sent back through it.
//!
//! candle's own graph allocates a zero tensor and adds to it for every gradient, computes gradients of frozen weights and
//! takes one scalar as its only start. This tape sends gradients along without copies, adds parameter gradients in place
//! over any number of backward passes, starts from gradients at any number of tensors (the place where an auxiliary loss
//! enters), recomputes checkpointed stretches, and refuses to finish when a recorded value received no gradient, so that
//! an operation outside the tape cannot cut the graph in silence.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use candle_core::{DType, Error, Result, Tensor, TensorId};
use products::{How, Precision};

use super::Gradients;

/// A low-rank addition to a frozen weight: `y += scale · (x · downᵀ) · upᵀ`.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// (rank, in)
    pub down: Tensor,
    /// (out, rank)
    pub up: Tensor,
    pub scale: f64,
}

impl Adapter {
    /// What the weight becomes with the addition in it, in f32.
    pub fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        let added = self.up.to_dtype(DType::F32)?.matmul(&self.down.to_dtype(DType::F32)?)?;
        weight.to_dtype(DType::F32)? + (added * self.scale)?
    }
}

/// Which tensors learn, and which frozen weights carry an adapter.
#[derive(Default)]
pub struct Learning {
    trainable: HashSet<TensorId>,
    adapters: HashMap<TensorId, Adapter>,
}

impl Learning {
    /// Gradients are kept for exactly these tensors.
    pub fn of<'a>(trainable: impl IntoIterator<Item = &'a Tensor>) -> Self {
        Self {
            trainable: trainable.into_iter().map(Tensor::id).collect(),
            adapters: HashMap::new(),
        }
    }

    /// Every `linear` over `weight` adds `adapter` from now on; its two factors learn if they were named in `of`.
    pub fn adapt(&mut self, weight: &Tensor, adapter: Adapter) {
        self.adapters.insert(weight.id(), adapter);
    }
}

type Pull<'m> = Box<dyn FnOnce(Tensor, &mut Backward<'_>) -> Result<()> + 'm>;

struct Step<'m> {
    name: &'static str,
    output: TensorId,
    pull: Pull<'m>,
}

#[derive(Default)]
struct Recording<'m> {
    tracked: HashSet<TensorId>,
    steps: Vec<Step<'m>>,
}

/// Passed to every operation; `Tape::off()` only computes.
pub struct Tape<'m> {
    learning: Rc<Learning>,
    recording: Option<RefCell<Recording<'m>>>,
    checkpointing: bool,
    how: How,
    /// The largest attention score seen, when `observing`.
    logit_max: Rc<Cell<f32>>,
    observing: bool,
}

impl Default for Tape<'_> {
    fn default() -> Self {
        Self::off()
    }
}

impl<'m> Tape<'m> {
    /// Records nothing: inference.
    pub fn off() -> Self {
        Self::plain(Rc::default())
    }

    /// Records nothing, but adapters apply: evaluation of a low-rank model.
    pub fn plain(learning: Rc<Learning>) -> Self {
        Self {
            learning,
            recording: None,
            checkpointing: false,
            how: How::default(),
            logit_max: Rc::new(Cell::new(f32::NEG_INFINITY)),
            observing: false,
        }
    }

    /// Records everything that depends on a tensor that learns.
    pub fn recording(learning: Rc<Learning>) -> Self {
        Self {
            recording: Some(RefCell::default()),
            ..Self::plain(learning)
        }
    }

    /// `checkpoint` keeps only its input and computes its stretch again on the way back.
    pub fn with_checkpoints(self, checkpointing: bool) -> Self {
        Self { checkpointing, ..self }
    }

    /// Products take one kernel whatever the number of rows, so that a sequence's bits do not depend on its batch; few rows
    /// (decoding) are slower for it.
    pub fn steady(self) -> Self {
        let how = How {
            steady: true,
            ..self.how
        };
        Self { how, ..self }
    }

    /// How exact products of f32 are, forwards and backwards.
    pub fn with_precision(self, precision: Precision) -> Self {
        let how = How { precision, ..self.how };
        Self { how, ..self }
    }

    pub(super) fn how(&self) -> How {
        self.how
    }

    /// Attention notes its largest score (before the mask, after scale and cap).
    pub fn observing(self, observing: bool) -> Self {
        Self { observing, ..self }
    }

    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// The largest attention score of the forward passes on this tape; `None` before the first.
    pub fn attention_logit_max(&self) -> Option<f32> {
        let value = self.logit_max.get();
        (value > f32::NEG_INFINITY).then_some(value)
    }

    pub(super) fn observes(&self) -> bool {
        self.observing
    }

    pub(super) fn note_logit(&self, value: f32) {
        self.logit_max.set(self.logit_max.get().max(value));
    }

    pub(super) fn learning(&self) -> Rc<Learning> {
        self.learning.clone()
    }

    pub(super) fn adapter(&self, weight: &Tensor) -> Option<&Adapter> {
        self.learning.adapters.get(&weight.id())
    }

    /// Whether `tensor` learns itself.
    pub(super) fn learns(&self, tensor: &Tensor) -> bool {
        self.recording.is_some() && self.learning.trainable.contains(&tensor.id())
    }

    /// Whether a gradient must reach `tensor`: it learns, or was computed from something that does.
    pub fn tracks(&self, tensor: &Tensor) -> bool {
        self.recording.as_ref().is_some_and(|recording| {
            self.learning.trainable.contains(&tensor.id()) || recording.borrow().tracked.contains(&tensor.id())
        })
    }

    pub(super) fn tracks_any(&self, tensors: &[&Tensor]) -> bool {
        tensors.iter().any(|tensor| self.tracks(tensor))
    }

    /// A tape of its own for a part of what this one records.
    pub(super) fn inner(&self) -> Self {
        Self {
            learning: self.learning.clone(),
            recording: self.recording.as_ref().map(|_| RefCell::default()),
            checkpointing: false,
            how: self.how,
            logit_max: self.logit_max.clone(),
            observing: self.observing,
        }
    }

    /// What learns of a weight: itself, or the factors of its adapter.
    pub(super) fn learning_of(&self, weight: &Tensor) -> Vec<Tensor> {
        let factors = self.adapter(weight).map(|adapter| [&adapter.down, &adapter.up]);
        let all = std::iter::once(weight).chain(factors.into_iter().flatten());
        all.filter(|tensor| self.learns(tensor)).cloned().collect()
    }

    /// Gradients reach `tensor` although nothing before it is on the tape: where a caller takes them up again.
    pub fn watch(&self, tensor: &Tensor) {
        if let Some(recording) = &self.recording {
            recording.borrow_mut().tracked.insert(tensor.id());
        }
    }

    pub(super) fn record(
        &self,
        name: &'static str,
        output: &Tensor,
        pull: impl FnOnce(Tensor, &mut Backward<'_>) -> Result<()> + 'm,
    ) {
        if let Some(recording) = &self.recording {
            let mut recording = recording.borrow_mut();
            recording.tracked.insert(output.id());
            recording.steps.push(Step {
                name,
                output: output.id(),
                pull: Box::new(pull),
            });
        }
    }

    /// Runs `stretch` on `x`. With checkpoints on, what it computes is forgotten and computed again on the way back.
    pub fn checkpoint(
        &self,
        x: &Tensor,
        stretch: impl Fn(&Tape<'m>, &Tensor) -> Result<Tensor> + 'm,
    ) -> Result<Tensor> {
        if !(self.checkpointing && self.is_recording()) {
            return stretch(self, x);
        }
        let forward = Tape {
            learning: self.learning.clone(),
            recording: None,
            checkpointing: false,
            how: self.how,
            logit_max: self.logit_max.clone(),
            observing: self.observing,
        };
        let output = stretch(&forward, x)?;
        let input = x.clone();
        let (learning, how) = (self.learning.clone(), self.how);
        self.record("checkpoint", &output, move |gradient, backward| {
            let tape = Tape {
                how,
                ..Tape::recording(learning)
            };
            tape.watch(&input);
            let output = stretch(&tape, &input)?;
            if let Some(gradient) = tape.backward_to(vec![(output, gradient)], &input, backward.gradients)? {
                backward.send(&input, gradient)?;
            }
            Ok(())
        });
        Ok(output)
    }

    /// Sends the gradients `seeds` (of the total loss with respect to each tensor) back to everything that learns,
    /// adding to `gradients`. A recorded value that receives none is an error: something outside the tape lies after it.
    pub fn backward(self, seeds: Vec<(Tensor, Tensor)>, gradients: &mut Gradients) -> Result<()> {
        self.run(seeds, gradients).map(drop)
    }

    /// The same, and returns the gradient that reached `input`, which must be `watch`ed.
    pub fn backward_to(
        self,
        seeds: Vec<(Tensor, Tensor)>,
        input: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        Ok(self
            .run(seeds, gradients)?
            .remove(&input.id())
            .map(|flow| flow.gradient))
    }

    fn run(self, seeds: Vec<(Tensor, Tensor)>, gradients: &mut Gradients) -> Result<HashMap<TensorId, Flow>> {
        let Some(recording) = self.recording else {
            return Err(Error::Msg("backward on a tape that does not record".into()));
        };
        let recording = recording.into_inner();
        let mut backward = Backward {
            tracked: recording.tracked,
            learning: self.learning,
            flows: HashMap::new(),
            gradients,
        };
        for (tensor, gradient) in seeds {
            backward.share(&tensor, &gradient)?;
        }
        for step in recording.steps.into_iter().rev() {
            let Some(flow) = backward.flows.remove(&step.output) else {
                return Err(Error::Msg(format!(
                    "no gradient reached the result of `{}`: what used it is not on the tape",
                    step.name
                )));
            };
            (step.pull)(flow.gradient, &mut backward)?;
        }
        Ok(backward.flows)
    }
}

/// A gradient on its way; only an owned one may be changed in place.
struct Flow {
    gradient: Tensor,
    owned: bool,
}

/// The way back: where each step sends the gradients of its inputs.
pub struct Backward<'g> {
    tracked: HashSet<TensorId>,
    learning: Rc<Learning>,
    flows: HashMap<TensorId, Flow>,
    pub(super) gradients: &'g mut Gradients,
}

impl Backward<'_> {
    /// Whether a gradient for `to` is of any use.
    pub(super) fn wants(&self, to: &impl Destination) -> bool {
        self.learns(to) || self.tracked.contains(&to.id())
    }

    pub(super) fn learns(&self, to: &impl Destination) -> bool {
        self.learning.trainable.contains(&to.id())
    }

    /// Hands over a gradient that nobody else holds.
    pub(super) fn send(&mut self, to: &impl Destination, gradient: Tensor) -> Result<()> {
        self.deliver(to, gradient, true)
    }

    /// Passes on a gradient whose storage is held elsewhere too.
    pub(super) fn share(&mut self, to: &impl Destination, gradient: &Tensor) -> Result<()> {
        self.deliver(to, gradient.clone(), false)
    }

    /// What has reached `to` so far, for a step that can add its own part in the same pass.
    pub(super) fn take(&mut self, to: &impl Destination) -> Option<Tensor> {
        self.flows.remove(&to.id()).map(|flow| flow.gradient)
    }

    fn deliver(&mut self, to: &impl Destination, gradient: Tensor, owned: bool) -> Result<()> {
        if gradient.dims() != to.dims() {
            return Err(Error::Msg(format!(
                "a gradient of shape {:?} for one of {:?}",
                gradient.dims(),
                to.dims()
            )));
        }
        if self.learns(to) {
            return self.gradients.add(to.id(), &gradient);
        }
        if !self.tracked.contains(&to.id()) {
            return Ok(());
        }
        let flow = match self.flows.remove(&to.id()) {
            None => Flow { gradient, owned },
            Some(held) => {
                let (mut into, other) = if held.owned {
                    (held, gradient)
                } else {
                    (Flow { gradient, owned }, held.gradient)
                };
                if into.owned {
                    super::cpu::add_in_place(&mut into.gradient, &other)?;
                } else {
                    into = Flow {
                        gradient: super::cpu::sum(&into.gradient, &other)?,
                        owned: true,
                    };
                }
                into
            }
        };
        self.flows.insert(to.id(), flow);
        Ok(())
    }
}

/// Where a gradient goes: the tensor, or the `Place` that stands for it.
pub(super) trait Destination {
    fn id(&self) -> TensorId;
    fn dims(&self) -> &[usize];
}

impl Destination for Tensor {
    fn id(&self) -> TensorId {
        Tensor::id(self)
    }

    fn dims(&self) -> &[usize] {
        Tensor::dims(self)
    }
}

/// A tensor's identity and shape: what a step keeps of an input whose values it does not need, so that they can be freed.
pub(super) struct Place {
    id: TensorId,
    dims: Vec<usize>,
}

impl Place {
    pub fn of(tensor: &Tensor) -> Self {
        Self {
            id: tensor.id(),
            dims: tensor.dims().to_vec(),
        }
    }
}

impl Destination for Place {
    fn id(&self) -> TensorId {
        self.id
    }

    fn dims(&self) -> &[usize] {
        &self.dims
    }
}
