//! Holds no code: the tests are the files in `tests/tests`.
