/**
 * What Azure's error codes mean. Sources: "Common Azure deployment errors" and the pages it names, "Understand common
 * error messages when you manage virtual machines in Azure", "Troubleshoot allocation failures", REST references of
 * Microsoft.Compute and Microsoft.Network, @azure/identity's error names. Compared without regard to case.
 */
export const FAULT_CODES = {
  throttled: ["TooManyRequests", "SubscriptionRequestsThrottled", "RequestRateTooLarge", "Throttled"],
  transient: [
    ...["InternalServerError", "InternalExecutionError", "InternalOperationError", "ServerTimeout", "GatewayTimeout"],
    ...["ServiceUnavailable", "RequestTimeout", "InternalServiceError", "RetryableError"],
    ...["NetworkingInternalOperationError", "StorageFailure/SocketException"],
    ...["VMStartTimedOut", "AuthenticationTimeout", "ServerBusy", "OperationTimedOut", "AbortError", "TimeoutError"],
  ],
  capacity: [
    ...["AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest", "VMAllocationFailed"],
    ...["OverconstrainedZonalAllocationRequest", "AllocationTimeout", "SpotVMAllocationFailed", "NoCapacity"],
    ...["RequestedSizeNotAvailable", "InsufficientCapacity", "AllocationRequestFailed", "InternalAllocationError"],
    ...["ConcurrentAllocationFailed", "OverconstrainedRequest", "CapacityReservationFull", "DedicatedHostFull"],
    ...["SpotVMEvicted", "MaxPriceLessThanCurrentPrice", "OutOfCapacity", "DiskAllocationFailed"],
  ],
  "not-offered": [
    ...["SkuNotAvailable", "NotAvailableForSubscription", "SkuNotSupported", "ResourceTypeNotSupportAvailabilityZones"],
    ...["InvalidAvailabilityZone", "AvailabilityZoneNotSupported", "VMSizeNotSupported", "ZoneNotSupported"],
  ],
  quota: [
    ...["QuotaExceeded", "SpotQuotaExceeded", "PublicIPCountLimitReached", "CoresQuotaExceeded", "QuotaLimitExceeded"],
    ...["NetworkInterfaceCountLimitReached", "SubscriptionResourceLimitReached", "ResourceCountLimitExceeded"],
    ...["DiskCountLimitReached", "ResourceGroupResourceLimitReached", "ResourceQuotaExceeded"],
  ],
  "subnet-full": ["SubnetIsFull", "PrivateIPAddressesExhausted"],
  setup: [
    ...["ResourceGroupNotFound", "SubscriptionNotFound", "InvalidSubscriptionId", "SubscriptionNotRegistered"],
    ...["MissingSubscriptionRegistration", "FeatureNotEnabled", "InvalidResourceReference", "LinkedInvalidPropertyId"],
    ...[
      "ImageNotFound",
      "PlatformImageNotFound",
      "GalleryImageNotFound",
      "ImageVersionNotFound",
      "ReferencedResourceNotFound",
    ],
    ...["MarketplacePurchaseEligibilityFailed", "ResourcePurchaseValidationFailed", "ResourcePurchaseCanceling"],
    ...[
      "KeyVaultAccessForbidden",
      "DiskEncryptionSetNotFound",
      "InvalidDiskEncryptionSet",
      "RequestDisallowedByPolicy",
    ],
    ...["NoRegisteredProviderFound", "LocationNotAvailableForResourceType", "ResourceGroupBeingDeleted", "ScopeLocked"],
    ...["SubscriptionNotEnabledEncryptionAtHost", "ReadOnlyDisabledSubscription", "NetworkSecurityGroupNotFound"],
    ...["InUseSubnetCannotBeDeleted", "VMImageNotSupported", "InvalidTemplateDeployment", "ResourcesBeingMoved"],
    ...["CommunityGalleryImageNotFound", "GalleryImageVersionNotFound", "DisallowedOperation"],
  ],
  auth: [
    ...["AuthorizationFailed", "LinkedAuthorizationFailed", "Unauthorized", "Forbidden", "AuthenticationFailed"],
    ...["InvalidAuthenticationToken", "InvalidAuthenticationTokenTenant", "ExpiredAuthenticationToken"],
    ...["AuthenticationFailedMissingToken", "AuthenticationError", "AuthenticationRequiredError"],
    ...["AggregateAuthenticationError", "CredentialUnavailableError", "SubscriptionDisabled", "AccountDisabled"],
    ...["InvalidAuthenticationTokenAudience", "PrincipalNotFound", "AuthorizationPermissionMismatch"],
  ],
  "bad-request": [
    ...["InvalidParameter", "InvalidParameterValue", "BadRequest", "InvalidRequestContent", "InvalidRequestFormat"],
    ...["PropertyChangeNotAllowed", "InvalidRequestParameters", "MissingApiVersionParameter", "InvalidResourceName"],
    ...["InvalidResourceLocation", "ResourceNameInvalid", "InvalidContentType", "LinkedAuthorizationInvalid"],
    ...["OSProvisioningInternalError", "InvalidSecurityType", "UserDataTooLarge", "UnsupportedVMSize"],
    ...["NetworkCanNotBeUsed", "InvalidApiVersionParameter", "NoRegisteredApi", "InvalidTagName", "TooManyTags"],
  ],
  "not-found": ["ResourceNotFound", "NotFound", "ParentResourceNotFound"],
  exists: ["PreconditionFailed", "ConditionNotMet", "ResourceAlreadyExists"],
  busy: [
    ...["Conflict", "ConflictingUserInput", "AnotherOperationInProgress", "AttachDiskWhileBeingDetached", "NicInUse"],
    ...[
      "NicReservedForAnotherVm",
      "OperationPreempted",
      "OperationNotAllowedDueToOngoingOperation",
      "InUseNetworkInterfaceCannotBeDeleted",
    ],
    ...[
      "PublicIPAddressCannotBeDeleted",
      "CanceledAndSupersededDueToAnotherOperation",
      "RetryableErrorDueToAnotherOperation",
    ],
    ...[
      "DiskIsAttached",
      "ResourceInUse",
      "OperationPreemptedByAnother",
      "InUseDisk",
      "ReferencedResourceNotProvisioned",
    ],
  ],
} as const;
