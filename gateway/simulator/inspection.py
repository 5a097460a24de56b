"""The back door of a simulated server: `/__simulator/state`, `faults`, `reset`; not gated, not counted."""

from __future__ import annotations

from gateway.simulator.exchange import Reply, Request, json_reply
from gateway.simulator.faults import FaultError, SimulatedFaults
from gateway.simulator.recorder import Recorder

PREFIX = "/__simulator/"


class Inspection:
    """Shows the recorder and feeds the faults. One per simulated server."""

    def __init__(self, dialect: str, recorder: Recorder, faults: SimulatedFaults) -> None:
        self._dialect = dialect
        self._recorder = recorder
        self._faults = faults

    def answer(self, request: Request) -> Reply:
        """Serve one request to the back door."""
        action = (request.method, request.path.removeprefix(PREFIX))
        if action == ("GET", "state"):
            return json_reply(self._state())
        if action == ("POST", "faults"):
            return self._inject(request)
        if action == ("POST", "reset"):
            self._recorder.reset()
            self._faults.clear()
            return json_reply({"ok": True})
        return json_reply({"error": "there are GET state, POST faults and POST reset"}, 404)

    def _state(self) -> dict[str, object]:
        recorder = self._recorder
        return {
            "dialect": self._dialect,
            "requests": [record.describe() for record in recorder.requests],
            "in_flight": recorder.in_flight,
            "max_in_flight": recorder.max_in_flight,
            "started": recorder.started,
            "completed": recorder.completed,
        }

    def _inject(self, request: Request) -> Reply:
        try:
            specs = request.json()
            if not isinstance(specs, list):
                raise FaultError("send a JSON list of faults")
            self._faults.extend(specs)
        except ValueError as error:
            return json_reply({"error": str(error)}, 400)
        return json_reply({"faults": len(self._faults)})
