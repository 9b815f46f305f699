"""A process that waits for another, as a thread."""

import contextlib
import io
import threading
import time


@contextlib.contextmanager
def waiting_for_this(function):
  """Runs `function`; enters when it has said on stderr that it waits.

  Yields:
    A list, which gets the result of `function` by the end.
  """
  results = []
  thread = threading.Thread(
    target=lambda: results.append(function()), daemon=True
  )
  with contextlib.ExitStack() as stack:
    said = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    stack.callback(thread.join, 60)
    thread.start()
    deadline = time.monotonic() + 60
    while ': waiting for it\n' not in said.getvalue():
      assert time.monotonic() < deadline, said.getvalue()
      time.sleep(0.01)
    assert 'another process ' in said.getvalue()
    yield results
