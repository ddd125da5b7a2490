"""The rules of the type1 IOMMU's ioctls (specs/iommu), and a container held to them."""
