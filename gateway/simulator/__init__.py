"""Faithful fake ChatGLM servers, for demos, tests and benches.

The cast: a `Program` (`dialects/`, one file a server) knows routes and quirks; a `Brain` is the model inside
it and a `Voice` paces it; the `Gate` is the event loop that the old servers block while they generate;
`Faults` go wrong on demand; the `Recorder` saw everything, and `/__simulator/` shows it. A `Simulator` puts
them on a port.

May be used by the command line and by tests, by nobody else; knows nothing of the gateway.
"""

from gateway.simulator.dialects import DIALECTS
from gateway.simulator.faults import FaultError, SimulatedFault
from gateway.simulator.options import Options
from gateway.simulator.server import Simulator, run

__all__ = ["DIALECTS", "FaultError", "Options", "SimulatedFault", "Simulator", "run"]
