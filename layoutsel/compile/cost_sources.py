"""Cost models of the session's target machine, each loaded on demand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from layoutsel.compile.session import Session
from layoutsel.cost import adapt
from layoutsel.cost.device_peaks import DevicePeaks, device_peaks
from layoutsel.cost.learned import PRETRAINED, LearnedCost, LearnedModel
from layoutsel.cost.link_probing import machine_links
from layoutsel.cost.peaks import machine_peaks
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import MachineProfile
from layoutsel.device.machine import this_machine
from tvm_passes.decision import placed_unit
from tvm_passes.devices import DeviceId


@dataclass(frozen=True)
class CostSources:
    """Profile, roofline and learned cost model of the target machine."""

    session: Session
    """Session of the model."""

    @cached_property
    def profile(self) -> MachineProfile:
        """The machine with its peaks and links; this machine is probed once and remembered."""
        session = self.session
        if session.machine is not None:
            return session.machine
        return MachineProfile(
            machine=this_machine(),
            peaks=machine_peaks(session.threads),
            devices={device.target_name: self._peaks(device) for device in session.identities},
            links=machine_links(session.identities),
        )

    def _peaks(self, device: DeviceId) -> DevicePeaks:
        """Return the peaks of a device, measured on its first identical device."""
        measured = self.session.alike[device]
        where = placed_unit(self.session.unit_of(device), measured.node, measured.index)
        return device_peaks(where, self.session.identities[measured])

    @cached_property
    def roofline(self) -> RooflineCost:
        """Roofline of the machine and its devices, with the units' efficiencies."""
        return RooflineCost.of(self.profile)

    @cached_property
    def learned(self) -> LearnedCost:
        """Learned cost model, adapted to the machine by calibration if available."""
        model = LearnedModel.load(Path(self.session.options.cost_model or PRETRAINED))
        adaptation = adapt.load(model.version, adapt.adaptation_file(self.profile))
        return LearnedCost(model, self.profile, adaptation)
