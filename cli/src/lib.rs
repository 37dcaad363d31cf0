//! slipway and kubectl-slipway: the command line
