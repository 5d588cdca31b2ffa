//! `lb-agent`: turns a Linux box into a layer-4 load balancer, and the command line to tell it what to do.

mod api;
mod client;
mod config;
mod control;
mod datapath;
mod health;
mod model;
mod store;

fn main() {}
