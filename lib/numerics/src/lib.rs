//! Arrays to arrays: moments, spectra, intrinsic dimension, entropy, statistics and random numbers.
//!
//! Nothing here reads a file, prints, or knows a record. Everything is a pure function of its arguments, and gives the same bits
//! for any number of threads: products are cut into tiles whose order of summation is fixed, and LAPACK runs on one thread.
//!
//! Matrices are views of `ndarray`; rows that are only passed by are slices. What needs LAPACK is behind the feature `lapack`.

pub mod activity;
#[cfg(feature = "lapack")]
mod band;
pub mod classes;
pub mod clusters;
pub mod dimension;
pub mod entropy;
pub mod exact;
pub mod keys;
#[cfg(feature = "lapack")]
pub mod krylov;
pub mod lambert;
#[cfg(feature = "lapack")]
pub mod lapack;
pub mod laws;
pub mod leading;
pub mod least_squares;
pub mod magnitudes;
pub mod measures;
pub mod moments;
pub mod naive_bayes;
pub mod neighbours;
pub mod operating;
pub mod path;
pub mod prevalence;
pub mod quantisation;
pub mod ranks;
pub mod regions;
pub mod rng;
mod scatter;
pub mod sequences;
pub mod shifted;
pub mod sparsity;
#[cfg(feature = "lapack")]
pub mod spectrum;
pub mod statistics;
pub mod strata;
#[cfg(feature = "lapack")]
pub mod subspace;
