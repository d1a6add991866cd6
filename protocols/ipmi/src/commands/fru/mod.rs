//! FRU inventories (section 34): what a server, its boards and its power supplies are.

pub mod area;
pub mod commands;
pub mod inventory;
pub mod read;

#[cfg(test)]
mod tests;

pub use area::{Area, Problem};
pub use inventory::{Board, Chassis, Inventory, Multirecord, Product, chassis_type_name};
pub use read::{Device, devices, read};
