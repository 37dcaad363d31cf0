//! Builds images: runs plans
