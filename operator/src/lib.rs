//! Turns ImageBuilds into pods and images: observe, validate, decide, apply, report
