//! Steering plans: which vectors are put to which use at which sites, layers and tokens of a model; and the flags by which every tool that
//! runs a model takes them, and learned system messages.
//!
//! The one crate that stands on other libraries of ours: a plan is a container (`acts`), what it does is done by `model`, and its flags have
//! the manners of `process`. The format is specified in `man/acts.5`.

mod flags;
mod operation;
mod plan;
mod soft_prompt;

pub use flags::{Action, Intervention, SteeringFlags};
pub use operation::{Gate, GateKind, Mode, Op, Operation, Positions};
pub use plan::{How, Made, Plan};
pub use soft_prompt::{OpenedSoftPrompt, Reader};
