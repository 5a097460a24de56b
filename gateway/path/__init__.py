"""The path of a request, from a parsed call to the last piece of its answer. Called by the doors.

`call` is a parsed request. `routing` says where it may go and what each backend would be sent.
`relay` begins the answer to a planned call. `generation` is one answer and the only retry loop; `attempt`
is one try on one backend; `unfinished` looks after work that a backend still does when its client has what
it wanted. `answer` is what a door reads: one generation, or several side by side. `shadow` copies a share
of the requests to another model. `context` holds what all of these work with, `backend_notes` logs what
they learn about backends.

Rule: nothing is repeated after the first content has been given to the door.
"""
