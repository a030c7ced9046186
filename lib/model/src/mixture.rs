//! A mixture of experts: MLPs of which each row goes through those that a router chooses, and beside them one for every row, if the
//! family has it.

use candle_core::{Result, Tensor};

use crate::config::{Config, Experts as How, Gate};
use crate::error;
use crate::loader::{Linear, Loader};
use crate::mlp::Mlp;
use crate::names;
use crate::ops::{self, Activation, Tape};
use crate::taps::{Point, Probe, Site, visit};

#[derive(Debug)]
pub(crate) struct Mixture {
    layer: usize,
    router: Linear,
    experts: Experts,
    shared: Option<Mlp>,
    how: How,
}

impl Mixture {
    pub fn load(loader: &mut Loader, layer: usize, config: &Config, how: How) -> error::Result<Self> {
        let names = &config.names;
        let router = names.in_block(layer, names.router);
        let shared = names
            .shared_expert
            .map(|prefix| Mlp::load(loader, layer, config, prefix, config.mlp_size));
        Ok(Self {
            layer,
            router: loader.linear(&router, (how.count, config.hidden_size), how.router_bias)?,
            experts: Experts::load(loader, layer, config, how)?,
            shared: shared.transpose()?,
            how,
        })
    }

    pub fn forward(&self, tape: &Tape, x: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let logits = self.router.forward(tape, x)?;
        let logits = visit(probe, Point::new(Site::RouterLogits, self.layer), logits)?;
        let choices = ops::largest(&logits, self.how.chosen)?;
        let choices = visit(probe, Point::new(Site::ExpertChoice, self.layer), choices)?;
        let weights = ops::expert_weights(tape, &logits, &choices, self.how.weights)?;
        let tensors = self.experts.tensors(self.how.count);
        let weights = (&weights, self.how.weighed);
        let mixed = ops::experts(tape, x, &choices, weights, &tensors, |tape, expert, x| {
            self.experts.forward(tape, x, expert)
        })?;
        match &self.shared {
            None => Ok(mixed),
            Some(shared) => ops::add(tape, &shared.forward(tape, x, &mut ())?, &mixed),
        }
    }
}

#[derive(Debug)]
enum Experts {
    Each(Vec<Mlp>),
    Together(Together),
}

impl Experts {
    fn load(loader: &mut Loader, layer: usize, config: &Config, how: How) -> error::Result<Self> {
        match config.names.experts {
            names::Experts::Each(prefix) => {
                let one = |expert| Mlp::load(loader, layer, config, &format!("{prefix}.{expert}."), config.mlp_size);
                Ok(Self::Each((0..how.count).map(one).collect::<error::Result<_>>()?))
            }
            names::Experts::Together { hidden, in_pairs, down } => {
                let at = |part| config.names.in_block(layer, part);
                Together::load(loader, config, how, [at(hidden), at(down)], in_pairs).map(Self::Together)
            }
        }
    }

    /// What of each of `count` experts may learn by itself; what all have together always learns.
    fn tensors(&self, count: usize) -> Vec<Vec<&Tensor>> {
        match self {
            Self::Each(experts) => experts.iter().map(Mlp::tensors).collect(),
            Self::Together(_) => vec![Vec::new(); count],
        }
    }

    /// Without sites: each expert has rows of its own.
    fn forward(&self, tape: &Tape, x: &Tensor, expert: usize) -> Result<Tensor> {
        match self {
            Self::Each(experts) => experts[expert].forward(tape, x, &mut ()),
            Self::Together(together) => together.forward(tape, x, expert),
        }
    }
}

/// Experts whose matrices are one tensor of each kind.
#[derive(Debug)]
struct Together {
    hidden: Stack, // (experts, 2 · size, d)
    in_pairs: bool,
    down: Stack, // (experts, d, size)
    gate: Gate,
    activation: Activation,
    size: usize,
}

impl Together {
    fn load(
        loader: &mut Loader,
        config: &Config,
        how: How,
        [hidden, down]: [String; 2],
        in_pairs: bool,
    ) -> error::Result<Self> {
        let (count, d, size, bias) = (how.count, config.hidden_size, config.mlp_size, config.mlp_bias);
        Ok(Self {
            hidden: Stack::load(loader, hidden, [count, 2 * size, d], bias)?,
            in_pairs,
            down: Stack::load(loader, down, [count, d, size], bias)?,
            gate: how.gate,
            activation: config.activation,
            size,
        })
    }

    fn forward(&self, tape: &Tape, x: &Tensor, expert: usize) -> Result<Tensor> {
        let both = self.hidden.forward(tape, x, expert)?;
        let [gate, up] = [0, 1].map(|half| self.half(tape, &both, half));
        let (gate, up) = (gate?, up?);
        let hidden = match self.gate {
            Gate::Plain => ops::gated(tape, &gate, &up, self.activation)?,
            Gate::Clamped { alpha, limit } => ops::clamped_gated(tape, &gate, &up, alpha, limit)?,
        };
        self.down.forward(tape, &hidden, expert)
    }

    /// The gates (0), or what they multiply (1): (rows, size) of (rows, 2 · size).
    fn half(&self, tape: &Tape, both: &Tensor, half: usize) -> Result<Tensor> {
        if !self.in_pairs {
            return ops::narrow(tape, both, 1, half * self.size, self.size);
        }
        let rows = both.dim(0)?;
        let pairs = ops::reshape(tape, both, (rows, self.size, 2))?;
        ops::reshape(tape, &ops::narrow(tape, &pairs, 2, half, 1)?, (rows, self.size))
    }
}

/// As many linear layers as there are experts.
#[derive(Debug)]
struct Stack {
    weights: Tensor,        // (experts, out, in)
    biases: Option<Tensor>, // (experts, out)
}

impl Stack {
    fn load(loader: &mut Loader, name: String, shape: [usize; 3], bias: bool) -> error::Result<Self> {
        let biased = format!("{name}_bias");
        Ok(Self {
            weights: loader.stack(name, shape)?,
            biases: bias.then(|| loader.get(biased, &shape[..2])).transpose()?,
        })
    }

    fn forward(&self, tape: &Tape, x: &Tensor, expert: usize) -> Result<Tensor> {
        ops::linear_of(tape, x, &self.weights, self.biases.as_ref(), expert)
    }
}
