//! One place that chooses hosts by transport, for all kinds of experiments.

use peyk_sansio::Prng;

use super::{Experiment, Transport, build};
use crate::host::{OneWay, window};
use crate::world::World;

/// What is done with a world, whatever its transport is.
pub trait Scene {
    /// What comes of it.
    type Output;

    /// Does it.
    fn play<H: OneWay>(self, world: World<H>) -> Self::Output;
}

impl Experiment {
    /// Plays a scene in the experiment's network with the experiment's transport.
    pub(super) fn stage<S: Scene>(&self, scene: S) -> S::Output {
        match self.transport {
            Transport::Homa => scene.play(self.world(build::homa(self))),
            Transport::Tcp { connections } => scene.play(self.world(build::window(self, connections, None))),
            Transport::Dctcp { connections } => {
                let gain = self.window.dctcp_gain.or(window::Settings::dctcp().dctcp_gain);
                scene.play(self.world(build::window(self, connections, gain)))
            }
            Transport::Srpt => scene.play(self.world(build::srpt(self))),
        }
    }

    fn world<H: OneWay>(&self, hosts: Vec<H>) -> World<H> {
        let seed = Prng::new(self.seed ^ 1).next_u64();
        World::new(self.transport.network(&self.topology), self.transport.discipline(), seed, hosts)
    }
}
