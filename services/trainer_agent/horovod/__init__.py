"""Horovod without SSH and MPI: a run's ring of ranks, and the rendezvous by which they find each other."""

from services.trainer_agent.horovod.ring import Ring

__all__ = ["Ring"]
