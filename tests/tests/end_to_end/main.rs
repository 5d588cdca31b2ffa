//! End to end: real programs and real traffic through a real agent, in network namespaces.
//!
//! | module | what it asks |
//! |---|---|
//! | `active` | are active connections those that the backends have? |
//! | `programs` | do curl, nginx, wrk and iperf3 work through a VIP? |
//! | `volume` | do ten thousand connections and a gigabyte arrive whole? |
//! | `packets` | path MTU, ping, fragments, time-to-live, no backend |
//! | `changes` | does a change of backends, weights or strategy disturb traffic? |
//! | `check` | is a sound lab found sound, and each planted fault by its name? |
//! | `clashes` | does one client port reach two virtual addresses over shared backends? |
//! | `daemon` | is the service manager told, does SIGHUP reload, are other limits refused? |
//! | `events` | is what goes wrong after the verdict counted? |
//! | `exceptions` | does tracking by exception keep every connection through changes, and say what it cannot have? |
//! | `feedback` | do affinity, connect times and reported load decide where flows go? |
//! | `floods` | do prefix lists and limits keep out whom they should, and nobody longer than they should? |
//! | `full_nat` | does full NAT need no route through the balancer, and does it refuse what it has no port for? |
//! | `health` | is a dead backend taken out, and taken in again? |
//! | `idle` | does an agent that has nothing to do take next to nothing? |
//! | `network` | are interfaces, links and neighbours followed? |
//! | `observe` | is what is told true, and seen in time? |
//! | `operations` | do ten thousand changes by eight clients end in what is desired? |
//! | `restarts` | does traffic outlive the agent, and does `detach` leave nothing? |
//! | `second_node` | does another node take over, by VRRP and by routing, and choose alike? |
//! | `slow_backend` | does `least-connections` even out a slow backend? |
//! | `traps` | does what other balancers got wrong in operation go right? |
//! | `under_change` | do a thousand changes under wrk fail no request and move no flow? |
//! | `vips` | does the agent own the addresses that it added, and no others? |

#[cfg(test)]
mod active;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod check;
#[cfg(test)]
mod clashes;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod events;
#[cfg(test)]
mod exceptions;
#[cfg(test)]
mod feedback;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod full_nat;
#[cfg(test)]
mod health;
mod idle;
#[cfg(test)]
mod network;
#[cfg(test)]
mod observe;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod packets;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod restarts;
mod retry;
#[cfg(test)]
mod second_node;
#[cfg(test)]
mod slow_backend;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod traps;
#[cfg(test)]
mod under_change;
#[cfg(test)]
mod vips;
#[cfg(test)]
mod volume;
