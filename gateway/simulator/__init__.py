"""Faithful fake ChatGLM servers, for demos, tests and benchmarks.

`program`: what all server programs share; `dialects`: one program per server; `brain`: the model inside:
what it is asked, and three ways to answer; `llama`: a brain with a real, very small model; `pacing`:
answers at the pace of a GPU; `loop_lock`: the event loop that old servers block while they generate;
`faults`: what goes wrong, how often, on which requests; `fault_effects`: what that does to a reply;
`exchange`: a request and its reply as values; `validation`: bodies checked as FastAPI does; `shapes`:
bodies that several servers share; `recorder`: what the server saw; `inspection`: `/__simulator/`, which
shows it; `options`: what one server is; `app`: its ASGI application; `connection`: its HTTP protocol, open
to misbehaviour; `server`: runs it.

Rule: Faithful, bugs included. Imports `formats` alone; only the command line and tests import it.
"""

from gateway.simulator.dialects import DIALECTS
from gateway.simulator.faults import FaultError, SimulatedFault
from gateway.simulator.options import Options
from gateway.simulator.server import Simulator, run

__all__ = ["DIALECTS", "FaultError", "Options", "SimulatedFault", "Simulator", "run"]
