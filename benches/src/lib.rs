//! Benchmarks of every operator.
