//! Several processes ("ranks") that compute one result, with the bits that one process would give.
//!
//! A sum of floating-point numbers depends on the order of its additions. Here the order is a balanced binary tree over the **slots** of
//! a batch, whose number is a power of two and part of the plan. A rank owns neighbouring slots, and adds those as a carrying
//! [`Counter`]: a subtree. Ranks then meet nearest neighbour first, which continues the same tree. So one rank with four slots, two with
//! two and four with one give the same bits.
//!
//! Everything is made of one operation of a [`Transport`]: `swap(peer, out, into)`. A rank's peers are those whose number differs from its
//! own in one bit. Errors are those of the operating system: they say which rank was lost, and why.

mod counter;
mod greeting;
mod libraries;
mod meeting;
#[cfg(feature = "mpi")]
mod mpi;
mod nccl;
mod shares;
mod tcp;
mod world;

pub use counter::Counter;
pub use meeting::Meeting;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use nccl::over_cards;
pub use shares::{Layout, Shares, Values, all_gather, reduce_scatter};
pub use tcp::Tcp;
pub use world::{Traffic, Transport, World};
