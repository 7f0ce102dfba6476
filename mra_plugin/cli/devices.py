"""Where models can run on this machine."""

import platform

import torch


def available_devices() -> dict[str, str]:
    """Devices by the name that ``--device`` takes, each with what it is."""
    devices = {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            devices[f"cuda:{index}"] = f"{properties.name}, {memory:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    if torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            devices[f"xpu:{index}"] = torch.xpu.get_device_name(index)
    return devices


def describe(device: torch.device) -> str:
    """What a device is, by its name and in words."""
    name = str(device)
    for candidate in (name, f"{name}:0"):
        if candidate in (known := available_devices()):
            return f"{candidate} ({known[candidate]})"
    return name
