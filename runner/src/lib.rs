//! The program in the pods: plan and stage
