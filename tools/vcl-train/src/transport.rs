//! The ways in which ranks talk, by name.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportName {
    Tcp,
    Mpi,
    Nccl,
}
