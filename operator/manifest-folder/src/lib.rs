//! A folder of manifests as the source of a plan: where Kubernetes would be, files are.
