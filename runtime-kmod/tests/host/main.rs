//! The rules of the runtime, each against a simulated kernel that can break them: tasks anywhere, CPUs that do not
//! come, bytes that change in between, and a memory that notices every write a running CPU could trip over.

mod apply;
mod bypass;
mod callbacks;
mod constants;
mod damage;
mod divert;
mod holders;
mod identity;
mod keys;
mod layers;
mod modules;
mod record;
mod report;
mod revert;
mod sim;
mod site;
mod wire;
