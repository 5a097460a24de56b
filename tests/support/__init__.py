"""What tests share: whole stacks of simulators and a gateway on real ports."""
