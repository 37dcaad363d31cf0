//! Overlay directories to layer archives and back
