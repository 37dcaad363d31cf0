//! Names and documents of the OCI and Docker image formats: digests, references, platforms, configs
