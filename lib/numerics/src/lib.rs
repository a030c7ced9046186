//! Arrays to arrays: moments, spectra, intrinsic dimension, entropy, statistics and random numbers.
//!
//! Nothing here reads a file, prints, or knows a record. Everything is a pure function of its arguments, and gives the same bits
//! for any number of threads: products are cut into tiles whose order of summation is fixed, and factorisations run on one thread.

pub mod entropy;
pub mod moments;
pub mod product;
pub mod rng;
pub mod statistics;
