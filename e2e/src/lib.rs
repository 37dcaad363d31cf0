//! The embedded cluster, the scenarios, the benchmarks
